//! Reads what strace wrote: which thread entered and left which system call, in the order in which it happened.
//!
//! strace stops a thread as it enters a call and as it leaves it, and writes a line at each stop (or one for both, if
//! nothing of another thread came between). A thread that has not been seen to leave a call cannot have told another
//! that it is done, so the order of lines in one file is the order of cause and effect. This module knows strace's
//! format and nothing of what the calls carry.

use std::collections::BTreeMap;

/// The arguments for strace that produce what [`parse`] reads, but for the file to write to.
///
/// `-D` makes the traced program our own child, so that it can be killed as itself.
pub const STRACE: &[&str] = &["strace", "-D", "-f", "-yy", "-xx", "-s", "150000", "-e", CALLS];

const CALLS: &str = "trace=openat,close,pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,fdatasync,fsync";

/// A system call as strace shows it on entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// The first argument, if it is a descriptor.
    pub descriptor: Option<Descriptor>,
    /// All bytes that it passes, in order: buffers put together, or a path.
    pub bytes: Vec<u8>,
    /// A buffer was longer than strace shows, so `bytes` are not all.
    pub is_cut: bool,
    /// The arguments as they are printed, for flags.
    pub arguments: String,
}

/// A descriptor and what it stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Descriptor {
    /// Its number.
    pub number: i32,
    /// A path, or `TCP:[local->remote]`.
    pub target: String,
}

/// One stop of one thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// It entered a call. The number names the call.
    Entered(usize, Call),
    /// It left the call of this number with this result; a negative one is an error.
    Left(usize, i64, Option<Descriptor>),
}

/// Why a trace cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line} of the trace: {what}: {text}")]
pub struct TraceError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
    /// The beginning of the line.
    pub text: String,
}

/// Whether the traced program has ended and strace has written all of it.
pub fn is_complete(trace: &str) -> bool {
    let Some(first) = trace.split_whitespace().next() else { return false };
    trace.lines().rev().take(64).any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(first) && words.next() == Some("+++")
    })
}

/// All stops of a trace, in order. Calls that never returned are entered and not left.
pub fn parse(trace: &str) -> Result<Vec<Stop>, TraceError> {
    let mut stops = Vec::new();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    let mut calls = 0;
    for (at, line) in trace.lines().enumerate() {
        let error = |what| TraceError { line: at + 1, what, text: line.chars().take(160).collect() };
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some(number) = open.remove(thread) else { continue }; // Entered before strace attached.
            let (result, descriptor) = result_of(resumed).ok_or_else(|| error("no result"))?;
            stops.push(Stop::Left(number, result, descriptor));
            continue;
        }
        let (name, arguments) = rest.split_once('(').ok_or_else(|| error("no call"))?;
        let (arguments, result) = match arguments.strip_suffix(" <unfinished ...>") {
            Some(arguments) => (arguments, None),
            None => {
                let end = arguments.rfind(") ").ok_or_else(|| error("no end of the arguments"))?;
                (&arguments[..end], Some(&arguments[end..]))
            }
        };
        let (bytes, is_cut) = quoted_bytes(arguments).ok_or_else(|| error("a string that is not hexadecimal"))?;
        let call = Call {
            name: name.to_owned(),
            descriptor: descriptor_of(arguments),
            bytes,
            is_cut,
            arguments: arguments.to_owned(),
        };
        calls += 1;
        stops.push(Stop::Entered(calls, call));
        match result {
            Some(result) => {
                let (result, descriptor) = result_of(result).ok_or_else(|| error("no result"))?;
                stops.push(Stop::Left(calls, result, descriptor));
            }
            None => {
                open.insert(thread, calls);
            }
        }
    }
    Ok(stops)
}

/// `) = 12<target>` or `resumed>) = -1 EPIPE (...)`. A call that a signal cut off has `?` for a result: an error.
fn result_of(text: &str) -> Option<(i64, Option<Descriptor>)> {
    let (_, result) = text.rsplit_once("= ")?;
    let length = result.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(result.len());
    match result[..length].parse() {
        Ok(number) => Some((number, descriptor_of(result))),
        Err(_) => result.starts_with('?').then_some((-1, None)),
    }
}

/// `12<target>` at the start of `text`.
fn descriptor_of(text: &str) -> Option<Descriptor> {
    let (number, rest) = text.split_once('<')?;
    let number = number.parse().ok()?;
    // A socket's target has `->` in it: the end is the last `>` before a comma or the end of the text.
    let target = match rest.find(">,").or_else(|| rest.trim_end().strip_suffix('>').map(str::len)) {
        Some(end) => &rest[..end],
        None => rest.split_once('>')?.0,
    };
    let target = match unescape(target) {
        Some(bytes) if target.starts_with("\\x") => String::from_utf8_lossy(&bytes).into_owned(),
        _ => target.to_owned(),
    };
    Some(Descriptor { number, target })
}

/// The bytes of all strings between quotes, put together, and whether strace cut one of them off.
fn quoted_bytes(arguments: &str) -> Option<(Vec<u8>, bool)> {
    let (mut bytes, mut is_cut) = (Vec::new(), false);
    let mut pieces = arguments.split('"');
    pieces.next();
    while let (Some(quoted), after) = (pieces.next(), pieces.next()) {
        bytes.extend(unescape(quoted)?);
        is_cut |= after.is_some_and(|after| after.starts_with("..."));
    }
    Some((bytes, is_cut))
}

/// `\x61\x62` as bytes.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (chunks, rest) = text.as_bytes().as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    chunks
        .iter()
        .map(|&[slash, x, high, low]| {
            (slash == b'\\' && x == b'x').then_some(())?;
            u8::try_from(digit(high)? << 4 | digit(low)?).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_entered_and_left_in_the_order_of_their_lines() {
        let trace = concat!(
            "10 openat(AT_FDCWD<\\x2f>, \"\\x2f\\x61\", O_RDWR|O_DSYNC) = 3<\\x2f\\x61>\n",
            "10 sendmsg(5<TCP:[127.0.0.1:1->127.0.0.1:2]>, {msg_iov=[{iov_base=\"\\x72\", iov_len=1}, ",
            "{iov_base=\"\\x66\\x74\", iov_len=2}]}, 0 <unfinished ...>\n",
            "11 pwrite64(3<\\x2f\\x61>, \"\\x00\", 1, 4096) = 1\n",
            "10 <... sendmsg resumed>)            = -1 EPIPE (Broken pipe)\n",
            "11 fsync(3<\\x2f\\x61> <unfinished ...>\n",
            "10 +++ exited with 0 +++\n",
        );
        let stops = parse(trace).expect("readable");
        let file = Some(Descriptor { number: 3, target: "/a".to_owned() });
        let socket = Some(Descriptor { number: 5, target: "TCP:[127.0.0.1:1->127.0.0.1:2]".to_owned() });
        let seen: Vec<_> = stops
            .iter()
            .map(|stop| match stop {
                Stop::Entered(number, call) => {
                    (*number, call.name.as_str(), call.descriptor.clone(), call.bytes.clone(), 0)
                }
                Stop::Left(number, result, descriptor) => (*number, "left", descriptor.clone(), Vec::new(), *result),
            })
            .collect();
        assert_eq!(
            seen,
            [
                (1, "openat", None, b"/a".to_vec(), 0),
                (1, "left", file.clone(), Vec::new(), 3),
                (2, "sendmsg", socket, b"rft".to_vec(), 0),
                (3, "pwrite64", file.clone(), b"\0".to_vec(), 0),
                (3, "left", None, Vec::new(), 1),
                (2, "left", None, Vec::new(), -1),
                (4, "fsync", file, Vec::new(), 0),
            ]
        );
        assert!(is_complete(trace));
        assert!(!is_complete("10 close(3) = 0\n11 +++ exited with 0 +++\n"), "only a thread has ended");
    }

    #[test]
    fn a_buffer_that_was_cut_off_is_marked() {
        let stops = parse("10 write(3<\\x61>, \"\\x61\"..., 9) = 9\n").expect("readable");
        assert!(matches!(&stops[0], Stop::Entered(1, call) if call.is_cut && call.bytes == b"a"), "{stops:?}");
    }
}
