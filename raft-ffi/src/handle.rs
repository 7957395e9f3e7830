//! Objects behind pointers that the host owns: each begins with a word that says what it is.
//!
//! A pointer from a host may be NULL, of another kind, or released: the word is compared before anything else is looked
//! at, and wiped when the object goes. It may also be garbage, which nobody can tell.

use std::mem;
use std::ptr;

/// What is behind a pointer. The words are random, so that they are in memory by chance only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Kind {
    /// `raft_error`
    Error = 0x7261_6674_9d3b_51e7,
    /// `raft_config`
    Config = 0x7261_6674_4c0a_86f1,
    /// `raft_members`
    Members = 0x7261_6674_e812_3bc5,
    /// `raft_result`
    Result = 0x7261_6674_0ff6_a92d,
    /// `raft_results`
    Results = 0x7261_6674_b35c_6e1b,
    /// `raft_reply`
    Reply = 0x7261_6674_61d9_c843,
    /// `raft_snapshot_reader`
    SnapshotReader = 0x7261_6674_27e4_5f99,
    /// `raft_digest_check`
    DigestCheck = 0x7261_6674_d4b1_7e3d,
}

/// What may be behind a pointer.
pub(crate) trait Boxed: Sized {
    /// Its word.
    const KIND: Kind;
}

/// An object as it is in memory: the word, then the rest.
#[repr(C)]
struct Object<T> {
    kind: u64,
    value: T,
}

/// Puts a value behind a pointer that the host will own.
pub(crate) fn own<T: Boxed>(value: T) -> *mut T {
    Box::into_raw(Box::new(Object { kind: T::KIND as u64, value })).cast()
}

fn is<T: Boxed>(pointer: *const T) -> bool {
    if pointer.is_null() || !pointer.cast::<Object<T>>().is_aligned() {
        return false;
    }
    // SAFETY: not NULL and aligned; that it may be read is the caller's word. Volatile, so that the check is made even
    // of an object whose word was wiped.
    unsafe { ptr::read_volatile(pointer.cast::<u64>()) == T::KIND as u64 }
}

/// Looks at the object behind a pointer; `None` if it is none of its kind.
///
/// # Safety
/// `pointer` is NULL or may be read, and nobody releases or changes the object for as long as it is looked at.
pub(crate) unsafe fn peek<'a, T: Boxed>(pointer: *const T) -> Option<&'a T> {
    // SAFETY: the word says that `own` made it.
    is(pointer).then(|| unsafe { &(*pointer.cast::<Object<T>>()).value })
}

/// As [`peek`], to change it.
///
/// # Safety
/// As for [`peek`], and nobody else looks at it.
pub(crate) unsafe fn peek_mut<'a, T: Boxed>(pointer: *mut T) -> Option<&'a mut T> {
    // SAFETY: the word says that `own` made it.
    is(pointer).then(|| unsafe { &mut (*pointer.cast::<Object<T>>()).value })
}

/// Takes an object back from the host; `None` if there is none of its kind.
///
/// # Safety
/// As for [`peek_mut`], and the host gives the object up.
pub(crate) unsafe fn release<T: Boxed>(pointer: *mut T) -> Option<T> {
    if !is(pointer) {
        return None;
    }
    // SAFETY: the word says that `own` made it, as a box.
    let mut object = unsafe { Box::from_raw(pointer.cast::<Object<T>>()) };
    // SAFETY: a plain write to a field of ours; volatile, because it is there for those who come too late.
    unsafe { ptr::write_volatile(&raw mut object.kind, 0) };
    let Object { value, .. } = *object;
    Some(value)
}

/// An object on the stack, lent to a callback and worthless afterwards.
pub(crate) struct Lent<T: Boxed>(Box<Object<T>>);

impl<T: Boxed> Lent<T> {
    /// Lends a value.
    pub(crate) fn new(value: T) -> Self {
        Self(Box::new(Object { kind: T::KIND as u64, value }))
    }

    /// What the callback gets.
    pub(crate) fn pointer(&mut self) -> *mut T {
        (&raw mut *self.0).cast()
    }

    /// The value, when the callback is over.
    pub(crate) fn value(&mut self) -> &mut T {
        &mut self.0.value
    }
}

impl<T: Boxed> Drop for Lent<T> {
    fn drop(&mut self) {
        // SAFETY: a plain write to a field of ours; volatile, because it is there for those who come too late.
        unsafe { ptr::write_volatile(&raw mut self.0.kind, 0) };
    }
}

const _: () = assert!(mem::align_of::<Object<u8>>() == 8);
