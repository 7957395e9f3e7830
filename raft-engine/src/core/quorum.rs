//! Majorities (§5.1), and majorities of both configurations while a change is joint (§6).

use std::cmp::Reverse;

use crate::types::{Configuration, ServerId};

/// Whether the servers for which `agrees` holds are a quorum.
pub(super) fn is_quorum(configuration: &Configuration, agrees: impl Fn(ServerId) -> bool) -> bool {
    agreed_value(configuration, |id| u64::from(agrees(id))) == 1
}

/// The highest value that a quorum has reached: `reached` gives each voter's.
///
/// Of one majority it is the median, the higher half of which has it; of a joint configuration the lower of the two. A
/// configuration without voters agrees to nothing.
pub(super) fn agreed_value(configuration: &Configuration, reached: impl Fn(ServerId) -> u64) -> u64 {
    let incoming = majority_value(configuration.voters().map(&reached).collect());
    if configuration.outgoing_voters.is_empty() {
        return incoming;
    }
    incoming.min(majority_value(configuration.outgoing_voters.iter().map(|&id| reached(id)).collect()))
}

fn majority_value(mut values: Vec<u64>) -> u64 {
    values.sort_unstable_by_key(|&value| Reverse(value));
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{GroupSettings, Identity, Member, MemberRole};

    fn configuration(voters: &[u64], learners: &[u64], outgoing: &[u64]) -> Configuration {
        let member = |id: &u64, role| Member {
            id: ServerId(*id),
            role,
            priority: 1,
            identity: Identity([*id as u8; 16]),
            address: String::new(),
            context: Vec::new(),
        };
        let mut members: Vec<_> = voters.iter().map(|id| member(id, MemberRole::Voter)).collect();
        members.extend(learners.iter().map(|id| member(id, MemberRole::Learner)));
        members.sort_by_key(|member| member.id);
        Configuration {
            members,
            outgoing_voters: outgoing.iter().map(|id| ServerId(*id)).collect(),
            highest_id: ServerId(9),
            change: None,
            settings: GroupSettings::default(),
        }
    }

    #[test]
    fn a_majority_is_more_than_half() {
        for (voters, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
            let all: Vec<u64> = (1..=voters).collect();
            let configuration = configuration(&all, &[9], &[]);
            assert!(is_quorum(&configuration, |id| id.0 <= needed));
            assert!(!is_quorum(&configuration, |id| id.0 < needed), "{voters} voters");
            assert!(!is_quorum(&configuration, |id| id.0 < needed || id.0 == 9), "learners never count");
        }
    }

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let joint = configuration(&[3, 4, 5], &[], &[1, 2, 3]);
        assert!(!is_quorum(&joint, |id| id.0 >= 3));
        assert!(!is_quorum(&joint, |id| id.0 <= 3));
        assert!(is_quorum(&joint, |id| [2, 3, 4].contains(&id.0)));
        assert_eq!(agreed_value(&joint, |id| id.0), 2);
    }

    #[test]
    fn nobody_agrees_to_nothing() {
        assert!(!is_quorum(&configuration(&[], &[1], &[]), |_| true));
    }
}
