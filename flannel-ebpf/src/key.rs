//! Map keys on the stack of a program.

use core::borrow::Borrow;
use core::marker::PhantomData;

use flannel_common::flow::Connection;
use flannel_common::maps::Port;

/// A key of type `K`, written in whole words.
///
/// Without CAP_PERFMON, a verifier before 6.8 refuses a key that is written field by field. It takes the write of one
/// field beside another for an attempt to change a pointer on the stack (`check_stack_write_fixed_off`).
#[repr(C)]
pub(crate) struct Key<K> {
    words: [u64; 2],
    kind: PhantomData<K>,
}

impl<K> Key<K> {
    const fn new(words: [u64; 2]) -> Self {
        const { assert!(size_of::<K>() <= size_of::<[u64; 2]>()) };
        Self { words, kind: PhantomData }
    }
}

impl From<&Connection> for Key<Connection> {
    #[inline(always)]
    fn from(connection: &Connection) -> Self {
        Self::new(connection.words())
    }
}

impl From<&Port> for Key<Port> {
    #[inline(always)]
    fn from(port: &Port) -> Self {
        Self::new(port.words())
    }
}

impl<K: zerocopy::FromBytes> Borrow<K> for Key<K> {
    #[inline(always)]
    fn borrow(&self) -> &K {
        // SAFETY: the words are the bytes of a key, and any bytes are one. No key needs a larger alignment than they
        // have.
        unsafe { &*(&raw const self.words).cast::<K>() }
    }
}
