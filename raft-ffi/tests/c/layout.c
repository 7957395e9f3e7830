/* The layout of every struct that crosses, as docs/abi.md has it: a change of any line here is a change of the ABI. */
#include <raft/raft.h>

#define SIZE(type, size) _Static_assert(sizeof(type) == (size), #type " has another size")
#define AT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), #type "." #field " is elsewhere")

SIZE(raft_member, 64);
AT(raft_member, id, 0);
AT(raft_member, address, 8);
AT(raft_member, context, 16);
AT(raft_member, context_length, 24);
AT(raft_member, role, 32);
AT(raft_member, priority, 36);
AT(raft_member, becomes, 40);
AT(raft_member, votes, 44);
AT(raft_member, durable_index, 48);
AT(raft_member, reserved, 56);

SIZE(raft_member_change, 80);
AT(raft_member_change, kind, 0);
AT(raft_member_change, role, 4);
AT(raft_member_change, priority, 8);
AT(raft_member_change, reserved0, 12);
AT(raft_member_change, id, 16);
AT(raft_member_change, address, 24);
AT(raft_member_change, context, 32);
AT(raft_member_change, context_length, 40);
AT(raft_member_change, settings, 48);
AT(raft_member_change, reserved, 56);

SIZE(raft_settings, 32);
AT(raft_settings, size, 0);
AT(raft_settings, lease_ms, 8);
AT(raft_settings, session_expiry_ms, 16);
AT(raft_settings, max_sessions, 24);
AT(raft_settings, session_reply_bytes, 28);

SIZE(raft_entry, 64);
AT(raft_entry, index, 0);
AT(raft_entry, term, 8);
AT(raft_entry, log_time, 16);
AT(raft_entry, data, 24);
AT(raft_entry, length, 32);
AT(raft_entry, reserved, 40);

SIZE(raft_completion, 80);
AT(raft_completion, tag, 0);
AT(raft_completion, outcome, 8);
AT(raft_completion, status, 12);
AT(raft_completion, index, 16);
AT(raft_completion, term, 24);
AT(raft_completion, result, 32);
AT(raft_completion, result_length, 40);
AT(raft_completion, leader, 48);
AT(raft_completion, reserved, 56);

SIZE(raft_notice, 56);
AT(raft_notice, size, 0);
AT(raft_notice, kind, 8);
AT(raft_notice, role, 12);
AT(raft_notice, term, 16);
AT(raft_notice, leader, 24);
AT(raft_notice, server, 32);
AT(raft_notice, message, 40);
AT(raft_notice, index, 48);

SIZE(raft_state_machine, 96);
AT(raft_state_machine, size, 0);
AT(raft_state_machine, user, 8);
AT(raft_state_machine, destroy, 16);
AT(raft_state_machine, apply, 24);
AT(raft_state_machine, query, 32);
AT(raft_state_machine, snapshot_begin, 40);
AT(raft_state_machine, snapshot_write, 48);
AT(raft_state_machine, snapshot_release, 56);
AT(raft_state_machine, restore, 64);
AT(raft_state_machine, completed, 72);
AT(raft_state_machine, notice, 80);
AT(raft_state_machine, digest, 88);

SIZE(raft_start, 72);
AT(raft_start, size, 0);
AT(raft_start, group, 8);
AT(raft_start, how, 16);
AT(raft_start, reserved0, 20);
AT(raft_start, members, 24);
AT(raft_start, member_count, 32);
AT(raft_start, applied, 40);
AT(raft_start, settings, 48);
AT(raft_start, contacts, 56);
AT(raft_start, contact_count, 64);

SIZE(raft_item, 64);
AT(raft_item, tag, 0);
AT(raft_item, data, 8);
AT(raft_item, length, 16);
AT(raft_item, session, 24);
AT(raft_item, sequence, 32);
AT(raft_item, lowest_outstanding, 40);
AT(raft_item, reserved, 48);

SIZE(raft_server_info, 352);
AT(raft_server_info, size, 0);
AT(raft_server_info, id, 8);
AT(raft_server_info, identity, 16);
AT(raft_server_info, incarnation, 32);
AT(raft_server_info, port, 40);
AT(raft_server_info, disk, 44);
AT(raft_server_info, ready, 48);
AT(raft_server_info, stopped, 52);
AT(raft_server_info, closed, 56);
AT(raft_server_info, reserved0, 60);
AT(raft_server_info, queued_bytes, 64);
AT(raft_server_info, connected_peers, 72);
AT(raft_server_info, log_writes, 80);
AT(raft_server_info, log_bytes, 88);
AT(raft_server_info, stopped_reason, 96);

SIZE(raft_group_info, 400);
AT(raft_group_info, size, 0);
AT(raft_group_info, group, 8);
AT(raft_group_info, role, 16);
AT(raft_group_info, stopped, 20);
AT(raft_group_info, term, 24);
AT(raft_group_info, leader, 32);
AT(raft_group_info, last_index, 40);
AT(raft_group_info, durable_index, 48);
AT(raft_group_info, commit_index, 56);
AT(raft_group_info, applied_index, 64);
AT(raft_group_info, snapshot_index, 72);
AT(raft_group_info, stopped_reason, 80);
AT(raft_group_info, removed_index, 336);
AT(raft_group_info, transferring_to, 344);
AT(raft_group_info, highest_id, 352);
AT(raft_group_info, change_phase, 360);
AT(raft_group_info, reserved0, 364);
AT(raft_group_info, change_deadline, 368);
AT(raft_group_info, diverged_index, 376);
AT(raft_group_info, digest_index, 384);
AT(raft_group_info, digest_verdict, 392);
AT(raft_group_info, reserved1, 396);

SIZE(raft_replica_digest, 64);
AT(raft_replica_digest, server, 0);
AT(raft_replica_digest, answer, 8);
AT(raft_replica_digest, odd, 12);
AT(raft_replica_digest, digest, 16);
AT(raft_replica_digest, sessions, 48);
AT(raft_replica_digest, reserved0, 52);
AT(raft_replica_digest, reserved, 56);

SIZE(raft_directory_group, 128);
AT(raft_directory_group, size, 0);
AT(raft_directory_group, cluster, 8);
AT(raft_directory_group, server, 16);
AT(raft_directory_group, group, 24);
AT(raft_directory_group, last_term, 32);
AT(raft_directory_group, last_index, 40);
AT(raft_directory_group, commit_index, 48);
AT(raft_directory_group, term, 56);
AT(raft_directory_group, snapshot_index, 64);
AT(raft_directory_group, voters, 72);
AT(raft_directory_group, voter_count, 80);
AT(raft_directory_group, lineage, 88);
AT(raft_directory_group, recovered, 120);
AT(raft_directory_group, reserved0, 124);

int main(void) {
    return 0;
}
