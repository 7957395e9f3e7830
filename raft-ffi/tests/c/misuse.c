/* Whatever is passed: an error, and nothing else happens. What takes a running server is in single.c. */
#include "support.h"

static void versions(void) {
    CHECK(raft_library_version() == RAFT_VERSION_MAJOR * 1000000 + RAFT_VERSION_MINOR * 1000 + RAFT_VERSION_PATCH);
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", RAFT_VERSION_MAJOR, RAFT_VERSION_MINOR, RAFT_VERSION_PATCH);
    CHECK(strcmp(text, raft_library_version_text()) == 0);
}

static void errors(void) {
    CHECK(raft_error_code(NULL) == RAFT_OK);
    CHECK(strcmp(raft_error_message(NULL), "") == 0);
    CHECK(!raft_error_retriable(NULL));
    CHECK(raft_error_outcome(NULL) == RAFT_OUTCOME_NONE);
    CHECK(raft_error_leader(NULL) == 0);
    raft_error_free(NULL);
    for (int32_t code = RAFT_OK; code >= RAFT_ERR_CANCELLED; code--) CHECK(strcmp(raft_error_name(code), "RAFT_ERR_?") != 0);
    CHECK(strcmp(raft_error_name(-1000), "RAFT_ERR_?") == 0);
    CHECK(strcmp(raft_error_name(1), "RAFT_ERR_?") == 0);
    CHECK(strcmp(raft_error_name(INT32_MIN), "RAFT_ERR_?") == 0);
}

static void configurations(void) {
    raft_config *config = NULL;
    char longest[70];
    memset(longest, 'x', sizeof longest);
    longest[65] = '\0';
    FAILS(RAFT_ERR_ARGUMENT, raft_config_new(NULL, 1, "d", "127.0.0.1:0", &config, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_config_new("", 1, "d", "127.0.0.1:0", &config, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_config_new(longest, 1, "d", "127.0.0.1:0", &config, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_config_new("\xff", 1, "d", "127.0.0.1:0", &config, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_config_new("c", 0, "d", "127.0.0.1:0", &config, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_config_new("c", 1, NULL, "127.0.0.1:0", &config, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_config_new("c", 1, "", "127.0.0.1:0", &config, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_config_new("c", 1, "d", NULL, &config, &error));
    CHECK(config == NULL);
    FAILS(RAFT_ERR_ARGUMENT, raft_config_new("c", 1, "d", "127.0.0.1:0", NULL, &error));
    CHECK(raft_config_new(NULL, 1, "d", "127.0.0.1:0", &config, NULL) == RAFT_ERR_ARGUMENT);
    config = (raft_config *)-1;
    CHECK(raft_config_new("c", 0, "d", "127.0.0.1:0", &config, NULL) == RAFT_ERR_ARGUMENT);
    CHECK(config == NULL);

    OK(raft_config_new("c", 1, "d", "127.0.0.1:0", &config, &error));
    OK(raft_config_set(config, "dispatch", "host", &error));
    OK(raft_config_set(config, "completions", "poll", &error));
    OK(raft_config_set(config, "peer.2", "127.0.0.1:7", &error));
    OK(raft_config_set(config, "max_entry_bytes", "1024", &error));
    FAILS(RAFT_ERR_SETTING, raft_config_set(config, "dispatch", "no", &error));
    FAILS(RAFT_ERR_SETTING, raft_config_set(config, "completions", "no", &error));
    FAILS(RAFT_ERR_SETTING, raft_config_set(config, "no_such_setting", "1", &error));
    FAILS(RAFT_ERR_SETTING, raft_config_set(config, "max_entry_bytes", "-1", &error));
    FAILS(RAFT_ERR_SETTING, raft_config_set(config, "max_entry_bytes", "99999999999999999999", &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_config_set(config, NULL, "1", &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_config_set(config, "dispatch", NULL, &error));
    FAILS(RAFT_ERR_HANDLE, raft_config_set(NULL, "dispatch", "host", &error));
    raft_config_free(config);
    raft_config_free(NULL);
}

static void foreign_handles(void) {
    raft_config *config = NULL;
    raft_error *other = NULL;
    raft_server *server = NULL;
    OK(raft_config_new("c", 1, "d", "127.0.0.1:0", &config, &error));
    CHECK(raft_config_set(config, "x", "y", &other) == RAFT_ERR_SETTING);

    /* Objects of another kind. */
    FAILS(RAFT_ERR_HANDLE, raft_config_set((raft_config *)other, "dispatch", "host", &error));
    FAILS(RAFT_ERR_HANDLE, raft_server_open((const raft_config *)other, &server, &error));
    FAILS(RAFT_ERR_HANDLE, raft_server_close((raft_server *)config, &error));
    FAILS(RAFT_ERR_HANDLE, raft_server_free((raft_server *)config, &error));
    FAILS(RAFT_ERR_HANDLE, raft_group_propose((raft_group *)config, NULL, 0, &error));
    CHECK(raft_error_code((raft_error *)config) == RAFT_OK);
    CHECK(raft_members_count((raft_members *)config) == 0);
    CHECK(raft_members_array((raft_members *)config) == NULL);
    CHECK(raft_members_find((raft_members *)config, 1) == NULL);
    CHECK(raft_result_data((raft_result *)config) == NULL);
    CHECK(raft_result_length((raft_result *)config) == 0);
    CHECK(raft_results_set((raft_results *)config, 0, NULL, 0) == RAFT_ERR_HANDLE);
    CHECK(raft_reply_set((raft_reply *)config, NULL, 0) == RAFT_ERR_HANDLE);
    raft_members_free((raft_members *)config);
    raft_result_free((raft_result *)config);
    raft_error_free((raft_error *)config);
    raft_config_free((raft_config *)other);
    CHECK(raft_error_code(other) == RAFT_ERR_SETTING);
    raft_error_free(other);
    OK(raft_config_set(config, "dispatch", "host", &error));
    raft_config_free(config);

    /* NULL, made up, and not aligned. */
    uintptr_t values[] = {0, 1, 2, 3, 4096 + 1, UINTPTR_MAX};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        raft_server *s = (raft_server *)values[i];
        raft_group *g = (raft_group *)values[i];
        raft_members *members = NULL;
        raft_result *result = NULL;
        raft_server_info server_state = {.size = sizeof server_state};
        raft_group_info group_state = {.size = sizeof group_state};
        raft_completion completion;
        size_t count = 9;
        int32_t descriptor = 9;
        FAILS(RAFT_ERR_HANDLE, raft_server_dispatch(s, 0, 0, &count, &error));
        CHECK(count == 0);
        FAILS(RAFT_ERR_HANDLE, raft_server_descriptor(s, &descriptor, &error));
        CHECK(descriptor == -1);
        FAILS(RAFT_ERR_HANDLE, raft_server_close(s, &error));
        if (values[i] != 0) FAILS(RAFT_ERR_HANDLE, raft_server_free(s, &error));
        FAILS(RAFT_ERR_HANDLE, raft_server_status(s, &server_state, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_status(g, &group_state, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_members(g, &members, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_propose(g, NULL, 0, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_propose_wait(g, NULL, 0, 0, &result, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_poll(g, &completion, 1, &count, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_query(g, RAFT_READ_STALE, 0, NULL, 0, 0, &result, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_query_submit(g, 1, RAFT_READ_STALE, 0, NULL, 0, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_read(g, RAFT_READ_STALE, 0, 0, NULL, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_read_submit(g, 1, RAFT_READ_STALE, 0, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_snapshot(g, 0, NULL, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_snapshot_submit(g, 1, &error));
        raft_member_change change = {.kind = RAFT_CHANGE_REMOVE, .id = 1};
        raft_settings settings = {.size = sizeof settings};
        uint64_t index = 9;
        FAILS(RAFT_ERR_HANDLE, raft_group_change_members(g, &change, 1, 0, 0, &index, &error));
        CHECK(index == 0);
        FAILS(RAFT_ERR_HANDLE, raft_group_change_members_submit(g, 1, &change, 1, 0, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_cancel_change(g, 0, &index, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_cancel_change_submit(g, 1, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_transfer_leadership(g, 1, 0, 0, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_transfer_leadership_submit(g, 1, 1, 0, &error));
        FAILS(RAFT_ERR_HANDLE, raft_group_settings(g, &settings, &error));
    }
    OK(raft_server_free(NULL, &error));
    raft_config_free((raft_config *)(uintptr_t)3);
    raft_error_free((raft_error *)(uintptr_t)3);
    CHECK(raft_snapshot_reader_index(NULL) == 0);
    CHECK(raft_snapshot_reader_length(NULL) == 0);
    CHECK(raft_snapshot_reader_read(NULL, NULL, 0, NULL) == RAFT_ERR_HANDLE);
}

static void settings_that_do_not_fit(void) {
    raft_config *config = NULL;
    raft_server *server = (raft_server *)-1;
    OK(raft_config_new("c", 1, "d", "127.0.0.1:0", &config, &error));
    OK(raft_config_set(config, "election_timeout_ms", "100", &error));
    FAILS(RAFT_ERR_SETTING, raft_server_open(config, &server, &error));
    CHECK(server == NULL);
    FAILS(RAFT_ERR_ARGUMENT, raft_server_open(config, NULL, &error));
    raft_config_free(config);
    CHECK(access("d", F_OK) != 0);
}

/* `destroy` is called once wherever the library could read the struct, and never where it could not. */
static void state_machines_that_are_not_taken(void) {
    journal j;
    raft_group *group = NULL;
    raft_start start = {.size = sizeof start, .group = 1, .how = RAFT_START_RESTART};
    journal_init(&j);
    raft_state_machine machine = journal_machine(&j);
    FAILS(RAFT_ERR_HANDLE, raft_server_start_group(NULL, &start, &machine, &group, &error));
    CHECK(j.destroyed == 1);
    FAILS(RAFT_ERR_ARGUMENT, raft_server_start_group(NULL, NULL, &machine, &group, &error));
    CHECK(j.destroyed == 2);
    start.size = 8;
    FAILS(RAFT_ERR_STRUCT_SIZE, raft_server_start_group(NULL, &start, &machine, &group, &error));
    CHECK(j.destroyed == 3);
    machine.size = 0;
    FAILS(RAFT_ERR_STRUCT_SIZE, raft_server_start_group(NULL, &start, &machine, &group, &error));
    machine.size = offsetof(raft_state_machine, digest) - 1; /* it once ended there */
    FAILS(RAFT_ERR_STRUCT_SIZE, raft_server_start_group(NULL, &start, &machine, &group, &error));
    machine.size = SIZE_MAX;
    FAILS(RAFT_ERR_STRUCT_SIZE, raft_server_start_group(NULL, &start, &machine, &group, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_server_start_group(NULL, &start, NULL, &group, &error));
    CHECK(j.destroyed == 3);

    /* A program of a later header: taken as long as it uses nothing that is not known here. */
    struct {
        raft_state_machine known;
        uint64_t later[2];
    } longer = {.known = journal_machine(&j)};
    start.size = sizeof start;
    longer.known.size = sizeof longer;
    FAILS(RAFT_ERR_HANDLE, raft_server_start_group(NULL, &start, &longer.known, &group, &error));
    CHECK(j.destroyed == 4);
    longer.later[1] = 1;
    FAILS(RAFT_ERR_STRUCT_SIZE, raft_server_start_group(NULL, &start, &longer.known, &group, &error));
    CHECK(j.destroyed == 4);
    j.destroyed = 1;
    journal_end(&j);
}

int main(void) {
    versions();
    errors();
    configurations();
    foreign_handles();
    settings_that_do_not_fit();
    state_machines_that_are_not_taken();
    return 0;
}
