//! What crosses is pinned byte by byte, and no input makes the codec take more than it was given.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use raft_engine::codec::{CodecError, MAX_ENCODED_BYTES, decode, encode};
use raft_engine::types::{
    Change, ClusterId, Configuration, DigestAnswer, DigestCheck, EntryKind, GroupId, GroupSettings, HardState,
    HostDigest, Identity, Incarnation, Lineage, LogTime, Member, MemberRole, Position, ServerId, SnapshotMeta,
    StateDigest,
};
use serde::{Deserialize, Serialize};

fn configuration() -> Configuration {
    let member = |id, role, byte, address: &str, context: &[u8]| Member {
        id: ServerId(id),
        role,
        priority: byte,
        identity: Identity([byte; 16]),
        address: address.to_owned(),
        context: context.to_vec(),
    };
    Configuration {
        members: vec![
            member(1, MemberRole::Voter, 0x11, "a:1", &[0xc1]),
            member(2, MemberRole::Learner, 0x22, "b:2", &[]),
        ],
        outgoing_voters: vec![ServerId(1)],
        highest_id: ServerId(2),
        change: Some(Change {
            target: vec![member(2, MemberRole::Voter, 0x22, "b:2", &[])],
            added: vec![ServerId(2)],
            deadline: LogTime(9),
        }),
        settings: GroupSettings {
            lease: Duration::from_nanos(5),
            session_expiry: Duration::from_nanos(6),
            max_sessions: 7,
            session_reply_bytes: 8,
        },
    }
}

fn pinned<T: Serialize + for<'a> Deserialize<'a> + PartialEq + Debug>(value: &T, hex: &str) {
    let bytes = encode(value);
    let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, hex.replace(' ', ""), "{value:?}");
    assert_eq!(&decode::<T>(&bytes).unwrap(), value);
}

#[test]
fn the_bytes_of_every_type_that_crosses_are_pinned() {
    let members = "0200000000000000 \
        0100000000000000 00000000 11 11111111111111111111111111111111 0300000000000000 613a31 0100000000000000 c1 \
        0200000000000000 01000000 22 22222222222222222222222222222222 0300000000000000 623a32 0000000000000000 \
        0100000000000000 0100000000000000 \
        0200000000000000 \
        01 0100000000000000 \
        0200000000000000 00000000 22 22222222222222222222222222222222 0300000000000000 623a32 0000000000000000 \
        0100000000000000 0200000000000000 0900000000000000 \
        0500000000000000 0600000000000000 07000000 08000000";
    pinned(&configuration(), members);
    let meta = SnapshotMeta {
        position: Position { term: 5, index: 90 },
        log_time: LogTime(77),
        configuration: configuration().into(),
        configuration_index: 4,
        file_bytes: 4096,
        file_crc: 0x0102_0304,
    };
    let around = "0500000000000000 5a00000000000000 4d00000000000000 {} 0400000000000000 0010000000000000 04030201";
    pinned(&meta, &around.replace("{}", members));
    pinned(&HardState { term: 3, vote: Some(ServerId(2)) }, "0300000000000000 01 0200000000000000");
    pinned(&HardState { term: 3, vote: None }, "0300000000000000 00");
    pinned(&Incarnation { number: 6, nonce: 0x00ab_cdef }, "0600000000000000 efcdab0000000000");
    pinned(&ClusterId::new("demo").unwrap(), "0400000000000000 64656d6f");
    pinned(&Position { term: 3, index: 12 }, "0300000000000000 0c00000000000000");
    pinned(&Lineage([7; 32]), &"07".repeat(32));
    pinned(&Identity([9; 16]), &"09".repeat(16));
    pinned(&GroupId(0x0102), "0201000000000000");
    pinned(&LogTime(1), "0100000000000000");
    pinned(&MemberRole::Learner, "01000000");
    pinned(&EntryKind::Command, "03000000");
    let digest = StateDigest { host: HostDigest([0xdd; 32]), sessions: 0x0102_0304 };
    let given = format!("{}04030201", "dd".repeat(32));
    let check = DigestCheck {
        index: 15,
        majority: Some(digest),
        replicas: vec![
            (ServerId(1), DigestAnswer::Given(digest)),
            (ServerId(2), DigestAnswer::Unable),
            (ServerId(3), DigestAnswer::Missing),
        ],
    };
    let replicas = "0100000000000000 00000000 {} 0200000000000000 01000000 0300000000000000 02000000";
    let replicas = replicas.replace("{}", &given);
    pinned(&check, &format!("0f00000000000000 01 {given} 0300000000000000 {replicas}"));
}

#[test]
fn a_count_beyond_the_bytes_is_refused_before_memory_is_taken() {
    // Elements of one byte, so that any honest count is at most the bytes that remain.
    let mut bytes = encode(&vec![1_u16, 2, 3]);
    bytes[..8].copy_from_slice(&7_u64.to_le_bytes());
    assert_eq!(decode::<Vec<u16>>(&bytes), Err(CodecError::CountBeyondBytes { count: 7, remaining: 6 }));
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(decode::<Vec<u16>>(&bytes), Err(CodecError::CountBeyondBytes { remaining: 6, .. })));
    // Within the bytes but more than they hold: found when they end.
    bytes[..8].copy_from_slice(&6_u64.to_le_bytes());
    assert_eq!(decode::<Vec<u16>>(&bytes), Err(CodecError::Truncated));
}

#[test]
fn a_count_is_checked_at_every_depth() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    enum Deep {
        Tuple(u8, Option<Vec<(u8, Vec<u32>)>>),
        Struct { map: BTreeMap<u8, Vec<u8>> },
    }
    let huge = u64::MAX.to_le_bytes();

    let tuple = Deep::Tuple(1, Some(vec![(2, vec![3])]));
    let mut bytes = encode(&tuple);
    assert_eq!(decode::<Deep>(&bytes).unwrap(), tuple);
    let inner_count = bytes.len() - 12;
    bytes[inner_count..inner_count + 8].copy_from_slice(&huge);
    assert!(matches!(decode::<Deep>(&bytes), Err(CodecError::CountBeyondBytes { remaining: 4, .. })));

    let map = Deep::Struct { map: BTreeMap::from([(1, vec![2])]) };
    let mut bytes = encode(&map);
    assert_eq!(decode::<Deep>(&bytes).unwrap(), map);
    let inner_count = bytes.len() - 9;
    bytes[inner_count..inner_count + 8].copy_from_slice(&huge);
    assert!(matches!(decode::<Deep>(&bytes), Err(CodecError::CountBeyondBytes { remaining: 1, .. })));
    bytes[4..12].copy_from_slice(&huge);
    assert!(matches!(decode::<Deep>(&bytes), Err(CodecError::CountBeyondBytes { .. })));
}

#[test]
fn elements_without_size_are_not_looped_over() {
    let bytes = encode(&vec![(); 1000]);
    assert_eq!(decode::<Vec<()>>(&bytes), Err(CodecError::CountBeyondBytes { count: 1000, remaining: 0 }));
}

#[test]
fn a_long_string_or_run_of_bytes_is_not_believed() {
    let mut bytes = encode("abc");
    bytes[..8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    assert_eq!(decode::<String>(&bytes), Err(CodecError::Truncated));
    assert_eq!(decode::<bytes::Bytes>(&bytes), Err(CodecError::Truncated));
}

#[test]
fn every_shorter_input_is_truncated_and_every_longer_one_has_trailing_bytes() {
    let bytes = encode(&configuration());
    for length in 0..bytes.len() {
        let error = decode::<Configuration>(&bytes[..length]).unwrap_err();
        let is_expected = matches!(error, CodecError::Truncated | CodecError::CountBeyondBytes { .. });
        assert!(is_expected, "{length}: {error}");
    }
    let longer = [&bytes[..], &[0, 0]].concat();
    assert_eq!(decode::<Configuration>(&longer), Err(CodecError::TrailingBytes { bytes: 2 }));
}

#[test]
fn values_that_a_type_does_not_have_are_refused() {
    assert!(matches!(decode::<bool>(&[2]), Err(CodecError::Invalid(_))));
    assert!(matches!(decode::<Option<u8>>(&[2, 0]), Err(CodecError::Invalid(_))));
    assert!(matches!(decode::<MemberRole>(&[2, 0, 0, 0]), Err(CodecError::Invalid(_))));
    let mut bytes = encode("abc");
    bytes[8] = 0xff;
    assert!(matches!(decode::<String>(&bytes), Err(CodecError::Invalid(_))));
}

#[test]
fn an_input_beyond_the_limit_is_not_looked_at() {
    let bytes = vec![0; MAX_ENCODED_BYTES + 1];
    assert_eq!(decode::<u8>(&bytes), Err(CodecError::TooLong { bytes: MAX_ENCODED_BYTES + 1 }));
}

#[test]
fn random_bytes_never_do_more_than_fail() {
    let mut random = fastrand::Rng::with_seed(1);
    let honest = encode(&configuration());
    for _ in 0..20_000 {
        let mut bytes = honest.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(..=bytes.len()));
        if let Ok(value) = decode::<Configuration>(&bytes) {
            assert_eq!(encode(&value), bytes, "one value has one encoding");
        }
    }
}
