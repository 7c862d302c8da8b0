//! The bytes of a plugin file, verified before anything of them runs.
//!
//! The system's loader cannot be trusted with this: it dies on a file that ends too early, says "no such file" of one for
//! another processor, and runs the constructors of any library before it can be asked what it is.

use std::mem::{offset_of, size_of};

use object::{
    Endianness,
    elf::{
        DT_GNU_HASH, DT_HASH, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, DT_SYMTAB, Dyn64, ELFCLASS64, ELFMAG, ET_DYN,
        FileHeader64, PT_DYNAMIC, PT_LOAD, ProgramHeader64, Sym64,
    },
    pod::slice_from_bytes,
    read::elf::{FileHeader as _, GnuHashTable, HashTable, ProgramHeader as _, Sym as _},
};
use sha2::{Digest, Sha256};
use taskbay_abi::{ABI_MAJOR, ABI_MINOR, FLAG_PANIC_ABORT, HEADER_SYMBOL, Header, MAGIC};
use thiserror::Error;

use crate::plugin::BuildId;

/// The processor that this host was built for, by its ELF number and the name in Rust's target triples.
const MACHINE: (u16, &str) = if cfg!(target_arch = "x86_64") {
    (object::elf::EM_X86_64, "x86_64")
} else if cfg!(target_arch = "aarch64") {
    (object::elf::EM_AARCH64, "aarch64")
} else {
    panic!("plugins for this processor are not known yet")
};

/// Other processors that one may have built for by mistake.
const OTHER_MACHINES: [(u16, &str); 6] = [
    (object::elf::EM_X86_64, "x86_64"),
    (object::elf::EM_AARCH64, "aarch64"),
    (object::elf::EM_386, "i686"),
    (object::elf::EM_ARM, "arm"),
    (object::elf::EM_RISCV, "riscv64gc"),
    (object::elf::EM_PPC64, "powerpc64le"),
];

/// Why a file cannot be a plugin. Each message says what is wrong and what to do, without the file's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Unfit {
    #[error("is empty: was the copy cut off? copy the compiled plugin again")]
    Empty,
    #[error("is not a compiled library: a plugin is the .so file that cargo builds for a crate of type cdylib")]
    NotALibrary,
    #[error("is a 32-bit library, and this host runs 64-bit ones: build it with --target {}-unknown-linux-gnu", MACHINE.1)]
    Bits32,
    #[error("was built for {0}, and this host runs on {ours}: build it with --target {ours}-unknown-linux-gnu", ours = MACHINE.1)]
    OtherMachine(String),
    #[error("is a program or an object file, not a shared library: set crate-type = [\"cdylib\"] in its Cargo.toml")]
    NotShared,
    #[error(
        "is truncated: it should have {needed} bytes and has {len}; copy it again, best beside the file and then renamed"
    )]
    Truncated { needed: u64, len: u64 },
    #[error("is damaged ({0}): build it again")]
    Damaged(&'static str),
    #[error("is a library but no taskbay plugin: it lacks the symbol {HEADER_SYMBOL}; end its lib.rs with plugin!(…)")]
    NoHeader,
    #[error(
        "was built for taskbay plugin interface {major}.{minor}, and this host speaks {ABI_MAJOR}.{ABI_MINOR}: build it with the taskbay-plugin that matches this host"
    )]
    OtherInterface { major: u32, minor: u32 },
    #[error(
        "was built with panic = \"abort\", so that one panic would end all its jobs: remove that from the profile in its Cargo.toml"
    )]
    PanicAbort,
    #[error("looks for libraries in the relative path {0}: link it without a relative rpath")]
    RelativePath(String),
}

/// A file that can be mapped.
#[derive(Debug)]
pub(super) struct Artifact {
    /// How many bytes, from the start, the loader needs.
    pub(super) loadable: usize,
    /// Whether the file goes on to where its head says that it ends. What lies behind the loadable part is not needed, but
    /// a file that lacks it is one that somebody is still writing, or has stripped in an odd way.
    pub(super) whole: bool,
}

/// Where the head of a file says its width and its byte order.
const EI_CLASS: usize = 4;
const EI_DATA: usize = 5;

type Elf = FileHeader64<Endianness>;
const NATIVE: Endianness = if cfg!(target_endian = "little") { Endianness::Little } else { Endianness::Big };

/// The identity of a file's contents.
pub(super) fn hash(bytes: &[u8]) -> BuildId {
    BuildId(Sha256::digest(bytes).into())
}

/// Looks at all that the loader would rely on.
pub(super) fn verify(bytes: &[u8]) -> Result<Artifact, Unfit> {
    let (header, segments) = head(bytes)?;
    let loadable = loadable(segments, bytes.len())?;
    let dynamic = Dynamic::of(bytes, segments)?;
    dynamic.refuse_relative_paths()?;
    check_header(&dynamic, dynamic.address_of(HEADER_SYMBOL)?.ok_or(Unfit::NoHeader)?)?;
    let sections = u64::from(header.e_shnum.get(NATIVE)) * u64::from(header.e_shentsize.get(NATIVE));
    let whole = header.e_shoff.get(NATIVE).saturating_add(sections) <= bytes.len() as u64;
    Ok(Artifact { loadable, whole })
}

fn head(bytes: &[u8]) -> Result<(&Elf, &[ProgramHeader64<Endianness>]), Unfit> {
    if bytes.is_empty() {
        return Err(Unfit::Empty);
    }
    if !bytes.starts_with(&ELFMAG) {
        return Err(Unfit::NotALibrary);
    }
    let truncated = || Unfit::Truncated { needed: size_of::<Elf>() as u64, len: bytes.len() as u64 };
    if *bytes.get(EI_CLASS).ok_or_else(truncated)? != ELFCLASS64 {
        return Err(Unfit::Bits32);
    }
    if *bytes.get(EI_DATA).ok_or_else(truncated)? != (if NATIVE == Endianness::Little { 1 } else { 2 }) {
        return Err(Unfit::OtherMachine("a processor of the other byte order".to_owned()));
    }
    let header = Elf::parse(bytes).map_err(|_| truncated())?;
    let machine = header.e_machine(NATIVE);
    if machine != MACHINE.0 {
        let name = OTHER_MACHINES.iter().find(|(number, _)| *number == machine);
        return Err(Unfit::OtherMachine(
            name.map_or_else(|| format!("processor type {machine}"), |(_, name)| (*name).to_owned()),
        ));
    }
    if header.e_type(NATIVE) != ET_DYN {
        return Err(Unfit::NotShared);
    }
    let count = u64::from(header.e_phnum.get(NATIVE));
    let needed = header.e_phoff(NATIVE).saturating_add(count * size_of::<ProgramHeader64<Endianness>>() as u64);
    let segments = header.program_headers(NATIVE, bytes);
    Ok((header, segments.map_err(|_| Unfit::Truncated { needed, len: bytes.len() as u64 })?))
}

/// The end of what gets mapped. Behind it lie section headers and debug information, which would only take memory.
fn loadable(segments: &[ProgramHeader64<Endianness>], len: usize) -> Result<usize, Unfit> {
    let mapped = segments.iter().filter(|segment| [PT_LOAD, PT_DYNAMIC].contains(&segment.p_type(NATIVE)));
    let needed = mapped.map(|segment| segment.p_offset(NATIVE).saturating_add(segment.p_filesz(NATIVE))).max();
    let needed = needed.ok_or(Unfit::Damaged("it has no segments"))?;
    usize::try_from(needed).ok().filter(|needed| *needed <= len).ok_or(Unfit::Truncated { needed, len: len as u64 })
}

/// The dynamic section, by which the loader itself finds its way: there are files without section headers.
struct Dynamic<'a> {
    bytes: &'a [u8],
    segments: &'a [ProgramHeader64<Endianness>],
    entries: &'a [Dyn64<Endianness>],
    strings: &'a [u8],
}

impl<'a> Dynamic<'a> {
    fn of(bytes: &'a [u8], segments: &'a [ProgramHeader64<Endianness>]) -> Result<Self, Unfit> {
        let entries = segments
            .iter()
            .find_map(|segment| segment.dynamic(NATIVE, bytes).transpose())
            .ok_or(Unfit::NotShared)?
            .map_err(|_| Unfit::Damaged("its dynamic section cannot be read"))?;
        let mut dynamic = Self { bytes, segments, entries, strings: &[] };
        let size = usize::try_from(dynamic.value(DT_STRSZ).unwrap_or(0)).unwrap_or(0);
        let strings = dynamic.value(DT_STRTAB).and_then(|address| dynamic.at(address)?.get(..size));
        dynamic.strings = strings.ok_or(Unfit::Damaged("its names cannot be read"))?;
        Ok(dynamic)
    }

    fn value(&self, tag: u32) -> Option<u64> {
        self.entries.iter().find(|entry| entry.d_tag.get(NATIVE) == u64::from(tag)).map(|entry| entry.d_val.get(NATIVE))
    }

    /// The bytes of the file from an address on, up to the end of its segment.
    fn at(&self, address: u64) -> Option<&'a [u8]> {
        self.segments.iter().filter(|segment| segment.p_type(NATIVE) == PT_LOAD).find_map(|segment| {
            let inside =
                address.checked_sub(segment.p_vaddr(NATIVE)).filter(|inside| *inside < segment.p_filesz(NATIVE))?;
            let start = usize::try_from(segment.p_offset(NATIVE).checked_add(inside)?).ok()?;
            let end = usize::try_from(segment.p_offset(NATIVE).checked_add(segment.p_filesz(NATIVE))?).ok()?;
            self.bytes.get(start..end)
        })
    }

    fn name(&self, offset: u64) -> Option<&'a [u8]> {
        let rest = self.strings.get(usize::try_from(offset).ok()?..)?;
        rest.split(|byte| *byte == 0).next()
    }

    fn refuse_relative_paths(&self) -> Result<(), Unfit> {
        for tag in [DT_RPATH, DT_RUNPATH] {
            let Some(paths) = self.value(tag).and_then(|offset| self.name(offset)) else { continue };
            let paths = String::from_utf8_lossy(paths);
            // An empty path is the working folder. `$ORIGIN` would be that of the private copy, where nothing else lies.
            if let Some(path) = paths.split(':').find(|path| !path.starts_with('/')) {
                return Err(Unfit::RelativePath(format!("{path:?}")));
            }
        }
        Ok(())
    }

    /// Where an exported symbol lies.
    fn address_of(&self, symbol: &str) -> Result<Option<u64>, Unfit> {
        let damaged = Unfit::Damaged("its symbols cannot be read");
        let count = self.symbol_count().ok_or(damaged.clone())?;
        let table = self.value(DT_SYMTAB).and_then(|address| self.at(address)).ok_or(damaged.clone())?;
        let (symbols, _) = slice_from_bytes::<Sym64<Endianness>>(table, count).map_err(|()| damaged)?;
        let found = symbols.iter().find(|candidate| {
            candidate.is_definition(NATIVE)
                && self.name(u64::from(candidate.st_name(NATIVE))) == Some(symbol.as_bytes())
        });
        Ok(found.map(|symbol| symbol.st_value(NATIVE)))
    }

    /// The number of symbols stands nowhere; it follows from the hash tables.
    fn symbol_count(&self) -> Option<usize> {
        let gnu = || {
            let bytes = self.at(self.value(DT_GNU_HASH)?)?;
            let table = GnuHashTable::<Elf>::parse(NATIVE, bytes).ok()?;
            // From a number that no symbol has, counting on would overflow.
            if usize::try_from(table.symbol_base()).ok()? > self.bytes.len() {
                return None;
            }
            table.symbol_table_length(NATIVE).or(Some(table.symbol_base()))
        };
        let old = || {
            let bytes = self.at(self.value(DT_HASH)?)?;
            Some(HashTable::<Elf>::parse(NATIVE, bytes).ok()?.symbol_table_length())
        };
        usize::try_from(gnu().or_else(old)?).ok()
    }
}

/// Reads the header's first fields, which need no relocation.
fn check_header(dynamic: &Dynamic<'_>, address: u64) -> Result<(), Unfit> {
    let damaged = Unfit::Damaged("its plugin header cannot be read");
    let header = dynamic.at(address).ok_or(damaged.clone())?;
    let u32_at =
        |offset: usize| header.get(offset..offset + 4).map(|bytes| u32::from_ne_bytes(bytes.try_into().expect("four")));
    let u64_at = |offset: usize| {
        header.get(offset..offset + 8).map(|bytes| u64::from_ne_bytes(bytes.try_into().expect("eight")))
    };
    if !header.starts_with(&MAGIC) {
        return Err(damaged);
    }
    let major = u32_at(offset_of!(Header, abi_major)).ok_or(damaged.clone())?;
    let minor = u32_at(offset_of!(Header, abi_minor)).ok_or(damaged.clone())?;
    if major != ABI_MAJOR || minor > ABI_MINOR {
        return Err(Unfit::OtherInterface { major, minor });
    }
    let flags = u64_at(offset_of!(Header, flags)).ok_or(damaged)?;
    if flags & FLAG_PANIC_ABORT != 0 { Err(Unfit::PanicAbort) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any shared library of the system will do for what has nothing to do with plugins.
    fn library() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("this process has a map");
        let libc = maps.split_whitespace().find(|word| word.contains("libc.so")).expect("this process uses libc");
        std::fs::read(libc).expect("read libc")
    }

    fn refusal(bytes: &[u8]) -> Unfit {
        verify(bytes).expect_err("it is unfit")
    }

    #[test]
    fn a_library_that_is_no_plugin_lacks_the_header() {
        assert_eq!(refusal(&library()), Unfit::NoHeader);
    }

    #[test]
    fn what_is_no_library_is_told_apart() {
        assert_eq!(refusal(b""), Unfit::Empty);
        assert_eq!(refusal(b"#!/bin/sh\n"), Unfit::NotALibrary);
        assert_eq!(refusal(&[b'x'; 4096]), Unfit::NotALibrary);
        let mut bytes = library();
        bytes[EI_CLASS] = 1;
        assert_eq!(refusal(&bytes), Unfit::Bits32);
        let mut bytes = library();
        bytes[18..20].copy_from_slice(&183_u16.to_ne_bytes());
        assert_eq!(refusal(&bytes), Unfit::OtherMachine("aarch64".to_owned()));
        let mut bytes = library();
        bytes[16..18].copy_from_slice(&1_u16.to_ne_bytes());
        assert_eq!(refusal(&bytes), Unfit::NotShared);
    }

    /// Found by the fuzz target of plugin files: it panicked where overflows are looked for.
    #[test]
    fn numbers_of_symbols_that_no_file_could_hold_are_refused() {
        let bytes = include_bytes!("../../../fuzz/corpus/plugin_file/symbols_beyond_the_file");
        assert!(verify(bytes).is_err());
    }

    #[test]
    fn a_file_that_ends_too_early_is_truncated_wherever_it_ends() {
        let bytes = library();
        for len in [5, 20, 63, 64, 100, 1_000, bytes.len() / 2] {
            assert!(matches!(refusal(&bytes[..len]), Unfit::Truncated { .. }), "cut at {len}");
        }
    }

    #[test]
    fn damage_anywhere_in_the_head_is_refused_without_a_panic() {
        let bytes = library();
        for position in 0..2_000 {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0xff;
            refusal(&damaged);
        }
    }
}
