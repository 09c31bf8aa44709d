//! Keys of maps, as programs put them on the stack.

use core::borrow::Borrow;
use core::marker::PhantomData;

use flannel_common::flow::Connection;
use flannel_common::maps::Port;

/// A key of type `K`, written in whole words.
///
/// Field by field it would be refused without CAP_PERFMON by verifiers before 6.8, which take a field that is written
/// beside another one for an attempt to change a pointer on the stack (`check_stack_write_fixed_off`).
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
        // SAFETY: the words hold a key as it stands in memory, and are aligned as no key asks for more; any bytes are one.
        unsafe { &*(&raw const self.words).cast::<K>() }
    }
}
