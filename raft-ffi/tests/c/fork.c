/* A server lives in the process that opened it: its forked child is refused, and the parent does not notice. */
#include "support.h"

#include <sys/wait.h>

static int in_child(raft_server *server, raft_group *group) {
    raft_server *another = NULL;
    raft_server_info info = {.size = sizeof info};
    raft_config *config = config_of(2);
    raft_item item = {.tag = 1};
    FAILS(RAFT_ERR_FORKED, raft_group_propose(group, &item, 1, &error));
    FAILS(RAFT_ERR_FORKED, raft_group_propose_wait(group, NULL, 0, -1, NULL, &error));
    FAILS(RAFT_ERR_FORKED, raft_group_read(group, RAFT_READ_STALE, 0, -1, NULL, &error));
    FAILS(RAFT_ERR_FORKED, raft_server_status(server, &info, &error));
    FAILS(RAFT_ERR_FORKED, raft_server_close(server, &error));
    FAILS(RAFT_ERR_FORKED, raft_server_free(server, &error));
    FAILS(RAFT_ERR_FORKED, raft_server_open(config, &another, &error));
    raft_config_free(config);
    return 0;
}

int main(void) {
    journal j;
    int status = -1;

    /* Forked before there is any server, a child is a process like any other. */
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        raft_server *own = open_server(3);
        OK(raft_server_free(own, &error));
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);

    journal_init(&j);
    raft_server *server = open_server(1);
    raft_group *group = start_group(server, 1, &j);
    propose_text(group, "before ");
    child = fork();
    CHECK(child >= 0);
    if (child == 0) _exit(in_child(server, group));
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    propose_text(group, "and after");
    CHECK(strcmp(j.text, "before and after") == 0);
    OK(raft_server_free(server, &error));
    journal_end(&j);
    return 0;
}
