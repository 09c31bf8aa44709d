//! Compacts maps.

use std::collections::BTreeMap;

/// Builds `map` again, of full nodes. One that was filled in the order of its keys has half-full ones, which of tens of
/// thousands of peers are megabytes.
pub(crate) fn compact<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = std::mem::take(map).into_iter().collect();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::compact;

    #[test]
    fn a_compact_map_holds_the_same() {
        let filled: BTreeMap<u32, u32> = (0..1000).rev().map(|key| (key, key * 2)).collect();
        let mut map = filled.clone();
        compact(&mut map);
        assert_eq!(map, filled);
    }
}
