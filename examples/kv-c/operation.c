#include "operation.h"

#include <assert.h>
#include <string.h>

void operation_append(struct buffer *bytes, const struct operation *operation) {
    buffer_append_u8(bytes, (uint8_t)operation->kind);
    buffer_append_u64(bytes, operation->id);
    buffer_append_u8(bytes, operation->is_learner);
    buffer_append(bytes, operation->raft_address, strlen(operation->raft_address) + 1);
    buffer_append(bytes, operation->resp_address, strlen(operation->resp_address) + 1);
}

struct operation operation_read(struct slice bytes) {
    assert(bytes.length > 10);
    const char *raft_address = (const char *)bytes.data + 10;
    return (struct operation){.kind = (enum operation_kind)bytes.data[0],
                              .id = load_u64(bytes.data + 1),
                              .is_learner = bytes.data[9] != 0,
                              .raft_address = raft_address,
                              .resp_address = raft_address + strlen(raft_address) + 1};
}
