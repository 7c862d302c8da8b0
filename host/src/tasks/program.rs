//! The bytes of an executable file, looked at before it gets jobs: whether this system could run it at all.

use std::path::Path;

use object::{
    Endianness,
    elf::{self, ELFCLASS64, ELFMAG, FileHeader64, PT_INTERP, PT_LOAD},
    read::elf::{FileHeader as _, ProgramHeader as _},
};
use thiserror::Error;

use crate::plugin::interpreter_of;

/// Why a file cannot be run. Each message says what is wrong and what to do, without the file's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Unrunnable {
    /// A shell would run it with success.
    #[error("is empty: was the copy cut off? copy it again")]
    Empty,
    #[error(
        "is truncated: it should have {needed} bytes and has {len}; copy it again, best beside the file and then renamed"
    )]
    Truncated { needed: u64, len: u64 },
    #[error("was built for another kind of processor than this host's: build it for {}", std::env::consts::ARCH)]
    OtherMachine,
    /// Compilers make libraries executable, and a copy of a plugin under another name need not be meant to run.
    #[error("is a compiled library, not a program: if it is to be a plugin, its name must end in .so")]
    Library,
    #[error("is compiled, but no program: link it")]
    NotAProgram,
    /// The C library would have a shell run it.
    #[error(
        "is neither a compiled program nor a script with a #! line: begin it with one, such as #!/bin/sh or #!/usr/bin/env python3"
    )]
    NoFirstLine,
    #[error("needs the interpreter {0}, which does not exist: install it, or change its first line")]
    NoInterpreter(String),
    #[error("needs the loader {0}, which does not exist: build it for this system's C library, or statically")]
    NoLoader(String),
}

type Elf = FileHeader64<Endianness>;
const NATIVE: Endianness = if cfg!(target_endian = "little") { Endianness::Little } else { Endianness::Big };
const MACHINE: u16 = if cfg!(target_arch = "x86_64") { elf::EM_X86_64 } else { elf::EM_AARCH64 };

/// Looks at what would only fail when a job runs.
pub(super) fn verify(bytes: &[u8]) -> Result<(), Unrunnable> {
    if bytes.is_empty() {
        return Err(Unrunnable::Empty);
    }
    if bytes.starts_with(&ELFMAG) {
        return verify_compiled(bytes);
    }
    match interpreter_of(bytes) {
        // A relative one is looked for from wherever the host runs.
        Some(program) if program.starts_with('/') && !Path::new(&program).exists() => {
            Err(Unrunnable::NoInterpreter(program))
        }
        Some(_) => Ok(()),
        None => Err(Unrunnable::NoFirstLine),
    }
}

fn verify_compiled(bytes: &[u8]) -> Result<(), Unrunnable> {
    let truncated = |needed: u64| Unrunnable::Truncated { needed, len: bytes.len() as u64 };
    let header_size = size_of::<Elf>() as u64;
    // Many systems run 32-bit programs as well; those are not looked into.
    if *bytes.get(4).ok_or_else(|| truncated(header_size))? != ELFCLASS64 {
        return Ok(());
    }
    if *bytes.get(5).ok_or_else(|| truncated(header_size))? != (if NATIVE == Endianness::Little { 1 } else { 2 }) {
        return Err(Unrunnable::OtherMachine);
    }
    let header = Elf::parse(bytes).map_err(|_| truncated(header_size))?;
    if header.e_machine(NATIVE) != MACHINE {
        return Err(Unrunnable::OtherMachine);
    }
    if ![elf::ET_EXEC, elf::ET_DYN].contains(&header.e_type(NATIVE)) {
        return Err(Unrunnable::NotAProgram);
    }
    let segments = header.program_headers(NATIVE, bytes).map_err(|_| truncated(header.e_phoff.get(NATIVE) + 1))?;
    let loaded = segments.iter().filter(|segment| segment.p_type(NATIVE) == PT_LOAD);
    let needed = loaded.map(|one| one.p_offset(NATIVE).saturating_add(one.p_filesz(NATIVE))).max().unwrap_or(0);
    if needed > bytes.len() as u64 {
        return Err(truncated(needed));
    }
    let Some(loader) = segments.iter().find(|segment| segment.p_type(NATIVE) == PT_INTERP) else {
        // A program that needs no loader has a place to start at.
        return if header.e_entry(NATIVE) == 0 { Err(Unrunnable::Library) } else { Ok(()) };
    };
    let name = loader.data(NATIVE, bytes).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    if Path::new(&name).exists() { Ok(()) } else { Err(Unrunnable::NoLoader(name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Vec<u8> {
        std::fs::read("/proc/self/exe").expect("read this program")
    }

    #[test]
    fn programs_and_scripts_are_told_from_what_cannot_run() {
        assert_eq!(verify(&program()), Ok(()));
        assert_eq!(verify(b"#!/bin/sh\n"), Ok(()));
        for no_script in
            [&b"echo a shell would run this\n"[..], b"\xef\xbb\xbf#!/bin/sh\n", b" #!/bin/sh\n", b"#!\n", b"\0\x01"]
        {
            assert_eq!(verify(no_script), Err(Unrunnable::NoFirstLine));
        }
        assert_eq!(verify(b""), Err(Unrunnable::Empty));
        assert_eq!(verify(b"#!/no/where -x\n"), Err(Unrunnable::NoInterpreter("/no/where".to_owned())));
        let mut bytes = program();
        bytes[18..20].copy_from_slice(&22_u16.to_ne_bytes());
        assert_eq!(verify(&bytes), Err(Unrunnable::OtherMachine));
        let maps = std::fs::read_to_string("/proc/self/maps").expect("this process has a map");
        let library = maps.split_whitespace().find(|word| word.contains("libgcc_s.so")).expect("this process uses it");
        assert_eq!(verify(&std::fs::read(library).expect("read a library")), Err(Unrunnable::Library));
    }

    #[test]
    fn damage_and_truncation_are_told_without_a_panic() {
        let bytes = program();
        for len in [4, 5, 20, 63, 64, 100, 5_000] {
            assert!(matches!(verify(&bytes[..len]), Err(Unrunnable::Truncated { .. })), "cut at {len}");
        }
        for position in 6..1_000 {
            let mut damaged = bytes[..bytes.len().min(1 << 20)].to_vec();
            damaged[position] ^= 0xff;
            let _ = verify(&damaged);
        }
    }
}
