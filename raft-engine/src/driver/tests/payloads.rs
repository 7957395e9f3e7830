//! The bytes of what the engine itself puts into a log, pinned: logs are read for ever, and the digests of the first and of
//! the last of these are lineages. They were computed by a script that knows docs/wire-format.md and docs/disk-format.md.

use crate::codec;
use crate::driver::formation::FirstEntry;
use crate::types::{
    Change, ClusterId, Configuration, GroupId, GroupSettings, Identity, Incarnation, Lineage, LogTime, Member,
    MemberRole, Position, QuorumRecovery, ServerId,
};

fn member(id: u64, role: MemberRole, byte: u8, address: &str, context: &[u8]) -> Member {
    Member {
        id: ServerId(id),
        role,
        priority: byte,
        identity: Identity([byte; 16]),
        address: address.to_owned(),
        context: context.to_vec(),
    }
}

fn configuration() -> Configuration {
    Configuration {
        members: vec![
            member(1, MemberRole::Voter, 0x11, "a:1", &[0xc1]),
            member(2, MemberRole::Learner, 0x22, "b:2", &[]),
        ],
        outgoing_voters: vec![ServerId(1)],
        highest_id: ServerId(2),
        change: None,
        settings: GroupSettings::default(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn entry_1_has_the_documented_bytes() {
    let bytes: Vec<u8> = (0..FORMATION.len() / 2)
        .map(|at| u8::from_str_radix(&FORMATION[2 * at..2 * at + 2], 16).expect("hexadecimal digits"))
        .collect();
    let first: FirstEntry = codec::decode(&bytes).expect("an entry 1");
    assert_eq!(first.check_join(&ClusterId::new("golden").unwrap(), GroupId(7)), Ok(()));
    assert_eq!(hex(&codec::encode(&first)), FORMATION);
}

#[test]
fn a_configuration_has_the_documented_bytes() {
    let mut changing = configuration();
    let target = changing.members.clone();
    changing.change = Some(Change { target, added: vec![ServerId(2)], deadline: LogTime(77) });
    assert_eq!(hex(&codec::encode(&changing)), CONFIGURATION);
    let bytes = codec::encode(&changing);
    assert_eq!(codec::decode::<Configuration>(&bytes).expect("a configuration"), changing);
}

#[test]
fn a_recovery_has_the_documented_bytes() {
    let mut alone = configuration();
    alone.members.truncate(1);
    alone.outgoing_voters.clear();
    let recovery = QuorumRecovery {
        configuration: alone,
        cluster: ClusterId::new("golden").unwrap(),
        group: GroupId(7),
        identity: Identity([0x11; 16]),
        incarnation: Incarnation { number: 6, nonce: 0x2a },
        former_lineage: Lineage(std::array::from_fn(|at| at as u8)),
        former_configuration: configuration(),
        former_term: 5,
        kept: Position { term: 5, index: 90 },
        committed: 88,
    };
    let bytes = codec::encode(&recovery);
    assert_eq!(hex(&bytes), RECOVERY);
    assert_eq!(codec::decode::<QuorumRecovery>(&bytes).expect("a recovery"), recovery);
}

const FORMATION: &str = concat!(
    "0600000000000000676f6c64656e070000000000000002000000000000000100000000000000000000001111111111111111111111111111",
    "1111110300000000000000613a310100000000000000c1020000000000000001000000222222222222222222222222222222222203000000",
    "00000000623a32000000000000000001000000000000000100000000000000020000000000000000000000000000000000a0b83046030000",
    "0010000000000100",
);
const CONFIGURATION: &str = concat!(
    "020000000000000001000000000000000000000011111111111111111111111111111111110300000000000000613a310100000000000000",
    "c102000000000000000100000022222222222222222222222222222222220300000000000000623a32000000000000000001000000000000",
    "0001000000000000000200000000000000010200000000000000010000000000000000000000111111111111111111111111111111111103",
    "00000000000000613a310100000000000000c102000000000000000100000022222222222222222222222222222222220300000000000000",
    "623a320000000000000000010000000000000002000000000000004d00000000000000000000000000000000a0b830460300000010000000",
    "000100",
);
const RECOVERY: &str = concat!(
    "010000000000000001000000000000000000000011111111111111111111111111111111110300000000000000613a310100000000000000",
    "c10000000000000000020000000000000000000000000000000000a0b8304603000000100000000001000600000000000000676f6c64656e",
    "07000000000000001111111111111111111111111111111106000000000000002a00000000000000000102030405060708090a0b0c0d0e0f",
    "101112131415161718191a1b1c1d1e1f02000000000000000100000000000000000000001111111111111111111111111111111111030000",
    "0000000000613a310100000000000000c102000000000000000100000022222222222222222222222222222222220300000000000000623a",
    "32000000000000000001000000000000000100000000000000020000000000000000000000000000000000a0b83046030000001000000000",
    "0100050000000000000005000000000000005a000000000000005800000000000000",
);
