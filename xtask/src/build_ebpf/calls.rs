//! Finds calls of memory functions in an object file for the kernel.
//!
//! Symbols do not show them: the linker keeps the functions in every object. Calls do, and there are two sorts: from
//! one section to another a relocation names the function, within a section the instruction holds the distance.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use object::read::elf::{ElfFile64, ElfSection64};
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _};
use object::{RelocationTarget, SectionIndex, SymbolKind};

const MEMORY_FUNCTIONS: [&str; 5] = ["memset", "memcpy", "memmove", "memcmp", "bcmp"];
/// Every instruction has this many bytes; a load of 64 bits takes two.
const SIZE: usize = 8;
const CALL: u8 = 0x85;
/// In the source register of a call: what is called is not one of the kernel's helpers but in this object.
const LOCAL: u8 = 1;

type File<'data> = ElfFile64<'data, Endianness>;

/// Every call of a memory function from elsewhere, as "caller calls callee".
pub fn to_memory_functions(object: &[u8]) -> Result<BTreeSet<String>> {
    let file = File::parse(object).context("the kernel programs are no ELF file")?;
    let functions = functions(&file);
    let name_at = |section: SectionIndex, address: u64| {
        functions.iter().find(|function| function.holds(section, address)).map(|function| function.name)
    };
    let mut found = BTreeSet::new();
    for section in
        file.sections().filter(|section| functions.iter().any(|one| one.section == section.index()))
    {
        for (place, distance) in local_calls(section.data().context("a section cannot be read")?) {
            let callee = match relocated(&file, &section, place) {
                Some(Target::Outside(name)) => Some(name),
                // The distance is from the start of what the relocation names, less one instruction.
                Some(Target::Inside(section, start)) => name_at(section, start.wrapping_add_signed(distance)),
                None => name_at(section.index(), place.wrapping_add_signed(distance)),
            };
            let caller = name_at(section.index(), place).unwrap_or("an unnamed function");
            if let Some(callee) = callee.filter(|callee| MEMORY_FUNCTIONS.contains(callee))
                && !MEMORY_FUNCTIONS.contains(&caller)
            {
                found.insert(format!("{caller} calls {callee}"));
            }
        }
    }
    Ok(found)
}

/// A function, by where it is.
struct Function<'data> {
    name: &'data str,
    section: SectionIndex,
    address: u64,
    size: u64,
}

impl Function<'_> {
    fn holds(&self, section: SectionIndex, address: u64) -> bool {
        self.section == section && (self.address..self.address + self.size).contains(&address)
    }
}

fn functions<'data>(file: &File<'data>) -> Vec<Function<'data>> {
    let text = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
    text.filter_map(|symbol| {
        let (name, section) = (symbol.name().ok()?, symbol.section_index()?);
        Some(Function { name, section, address: symbol.address(), size: symbol.size() })
    })
    .collect()
}

/// What a relocation names: a place in the object, or a function that is not in it.
enum Target<'data> {
    Inside(SectionIndex, u64),
    Outside(&'data str),
}

fn relocated<'data>(
    file: &File<'data>,
    section: &ElfSection64<'data, '_, Endianness>,
    place: u64,
) -> Option<Target<'data>> {
    let (_, relocation) = section.relocations().find(|(relocated, _)| *relocated == place)?;
    let RelocationTarget::Symbol(index) = relocation.target() else { return None };
    let symbol = file.symbol_by_index(index).ok()?;
    match symbol.section_index() {
        Some(section) => Some(Target::Inside(section, symbol.address())),
        None => Some(Target::Outside(symbol.name().ok()?)),
    }
}

/// The place of every call within the object, and how many bytes from its own place it goes.
fn local_calls(code: &[u8]) -> impl Iterator<Item = (u64, i64)> {
    code.chunks_exact(SIZE).enumerate().filter_map(|(index, instruction)| match *instruction {
        [CALL, registers, _, _, a, b, c, d] if registers >> 4 == LOCAL => {
            // Distances count from the next instruction.
            let instructions = i64::from(i32::from_le_bytes([a, b, c, d])) + 1;
            Some(((index * SIZE) as u64, instructions * SIZE as i64))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use object::elf::R_BPF_64_32;
    use object::write::{Object, Relocation, SectionId, StandardSection, Symbol, SymbolId, SymbolSection};
    use object::{Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags};
    use object::{SymbolKind, SymbolScope};

    use super::{CALL, to_memory_functions};

    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

    fn call(distance: i32) -> [u8; 8] {
        let [a, b, c, d] = distance.to_le_bytes();
        [CALL, 0x10, 0, 0, a, b, c, d]
    }

    /// An object with a program in a section of its own, and functions in `.text`.
    struct Rig {
        object: Object<'static>,
        program: SectionId,
        text: SectionId,
    }

    impl Rig {
        fn new() -> Self {
            let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
            let program = object.add_section(Vec::new(), b"xdp".to_vec(), SectionKind::Text);
            let text = object.section_id(StandardSection::Text);
            Self { object, program, text }
        }

        fn function(&mut self, name: &str, section: SectionId, code: &[[u8; 8]]) -> SymbolId {
            let symbol = self.symbol(name, SymbolSection::Undefined);
            self.object.add_symbol_data(symbol, section, &code.concat(), 8);
            symbol
        }

        fn symbol(&mut self, name: &str, section: SymbolSection) -> SymbolId {
            self.object.add_symbol(Symbol {
                name: name.as_bytes().to_vec(),
                value: 0,
                size: 0,
                kind: SymbolKind::Text,
                scope: SymbolScope::Linkage,
                weak: false,
                section,
                flags: SymbolFlags::None,
            })
        }

        fn relocate(&mut self, place: u64, symbol: SymbolId) {
            let flags = RelocationFlags::Elf { r_type: R_BPF_64_32 };
            let relocation = Relocation { offset: place, symbol, addend: 0, flags };
            self.object.add_relocation(self.program, relocation).unwrap();
        }

        fn found(&self) -> Vec<String> {
            to_memory_functions(&self.object.write().unwrap()).unwrap().into_iter().collect()
        }
    }

    #[test]
    fn a_function_that_nobody_calls_is_no_call() {
        let mut rig = Rig::new();
        rig.function("vxlan_xdp", rig.program, &[EXIT]);
        rig.function("memcpy", rig.text, &[EXIT]);
        assert!(rig.found().is_empty());
    }

    #[test]
    fn a_call_across_sections_is_found_by_its_relocation() {
        let mut rig = Rig::new();
        rig.function("vxlan_xdp", rig.program, &[EXIT, call(-1), EXIT]);
        rig.function("helper", rig.text, &[EXIT]);
        let memset = rig.function("memset", rig.text, &[EXIT]);
        rig.relocate(8, memset);
        assert_eq!(rig.found(), ["vxlan_xdp calls memset"]);
    }

    #[test]
    fn a_call_across_sections_is_found_by_the_place_in_a_section() {
        let mut rig = Rig::new();
        rig.function("vxlan_xdp", rig.program, &[call(1), EXIT]);
        rig.function("helper", rig.text, &[EXIT, EXIT]);
        rig.function("memcmp", rig.text, &[EXIT]);
        let section = rig.object.section_symbol(rig.text);
        rig.relocate(0, section);
        assert_eq!(rig.found(), ["vxlan_xdp calls memcmp"]);
    }

    #[test]
    fn a_call_within_a_section_is_found_by_its_distance() {
        let mut rig = Rig::new();
        rig.function("bcmp", rig.text, &[EXIT]);
        rig.function("helper", rig.text, &[EXIT, call(-3), EXIT]);
        assert_eq!(rig.found(), ["helper calls bcmp"]);
    }

    #[test]
    fn a_call_out_of_the_object_is_found() {
        let mut rig = Rig::new();
        rig.function("bridge", rig.program, &[call(-1), EXIT]);
        let memcpy = rig.symbol("memcpy", SymbolSection::Undefined);
        rig.relocate(0, memcpy);
        assert_eq!(rig.found(), ["bridge calls memcpy"]);
    }

    #[test]
    fn other_calls_are_fine() {
        let mut rig = Rig::new();
        let kernel_helper = [CALL, 0, 0, 0, 1, 0, 0, 0];
        rig.function("bridge", rig.program, &[kernel_helper, call(-1), EXIT]);
        let helper = rig.function("helper", rig.text, &[EXIT]);
        rig.relocate(8, helper);
        // memmove may use memcpy: callers of memmove are reported for that.
        rig.function("memcpy", rig.text, &[EXIT]);
        rig.function("memmove", rig.text, &[call(-2), EXIT]);
        assert!(rig.found().is_empty());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let error = to_memory_functions(b"no object").unwrap_err();
        assert_eq!(error.to_string(), "the kernel programs are no ELF file");
    }
}
