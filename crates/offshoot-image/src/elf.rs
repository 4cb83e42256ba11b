//! What an executable says about itself in its ELF header: enough to tell whether it runs anywhere of its kind.
//!
//! Reads bytes only. Little-endian files, which all our triples have.

/// The parts of an ELF file that matter for a static executable.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Elf {
    /// `e_machine`.
    pub machine: u16,
    /// Whether it names a program interpreter: it is dynamic.
    pub interpreter: bool,
    /// How many shared libraries it needs.
    pub needed: usize,
    /// Whether some segment asks for an executable stack.
    pub executable_stack: bool,
}

/// Why bytes are no executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// It begins otherwise.
    #[error("not an ELF file")]
    Magic,
    /// Its numbers are written the other way round.
    #[error("not little-endian")]
    Endian,
    /// Its class is unknown.
    #[error("neither 32 nor 64 bits")]
    Class,
    /// It ends before what it says it has.
    #[error("the ELF file is cut short")]
    Short,
}

/// The triples that agents and images are built for, by `e_machine`.
const TRIPLES: [(u16, &str); 5] = [
    (62, "x86_64-unknown-linux-musl"),
    (183, "aarch64-unknown-linux-musl"),
    (3, "i686-unknown-linux-musl"),
    (40, "armv7-unknown-linux-musleabihf"),
    (243, "riscv64gc-unknown-linux-musl"),
];

/// `e_machine` of the executables of a triple, if it is one that images are built for.
pub fn machine(triple: &str) -> Option<u16> {
    TRIPLES.iter().find(|(_, name)| *name == triple).map(|(machine, _)| *machine)
}

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;

/// Reads fields of one width at offsets in a file that may lie.
struct Fields<'a> {
    bytes: &'a [u8],
    wide: bool,
}

impl Fields<'_> {
    fn half(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..at.checked_add(2)?)?;
        Some(u16::from_le_bytes(bytes.try_into().ok()?))
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// An address, offset or size: 8 bytes in a 64-bit file, else 4.
    fn address(&self, at: usize) -> Option<u64> {
        if !self.wide {
            return self.word(at).map(u64::from);
        }
        let bytes = self.bytes.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn offset(&self, at: usize) -> Option<usize> {
        self.address(at)?.try_into().ok()
    }

    fn pick(&self, wide: usize, narrow: usize) -> usize {
        if self.wide { wide } else { narrow }
    }
}

impl Elf {
    /// Reads an executable.
    ///
    /// # Errors
    ///
    /// [`ElfError`], when it is no little-endian ELF file, or is cut short.
    pub fn parse(bytes: &[u8]) -> Result<Elf, ElfError> {
        if !bytes.starts_with(b"\x7fELF") {
            return Err(ElfError::Magic);
        }
        if bytes.get(5) != Some(&1) {
            return Err(ElfError::Endian);
        }
        let wide = match bytes.get(4) {
            Some(1) => false,
            Some(2) => true,
            _ => return Err(ElfError::Class),
        };
        read(&Fields { bytes, wide }).ok_or(ElfError::Short)
    }

    /// Where in the file an executable's list of libraries lies, by the headers at its front; `None` when it has none, or
    /// they are cut short.
    pub fn libraries(headers: &[u8]) -> Option<std::ops::Range<usize>> {
        if !headers.starts_with(b"\x7fELF") || headers.get(5) != Some(&1) {
            return None;
        }
        let file = Fields { bytes: headers, wide: *headers.get(4)? == 2 };
        let table = file.offset(file.pick(32, 28))?;
        let size = usize::from(file.half(file.pick(54, 42))?);
        let count = usize::from(file.half(file.pick(56, 44))?);
        for index in 0..count {
            let entry = table.checked_add(index.checked_mul(size)?)?;
            if file.word(entry)? == PT_DYNAMIC {
                let offset = file.offset(entry.checked_add(file.pick(8, 4))?)?;
                let length = file.offset(entry.checked_add(file.pick(32, 16))?)?;
                return Some(offset..offset.checked_add(length)?);
            }
        }
        None
    }

    /// The triple that an image for its machine is built for, if there is one.
    pub fn triple(&self) -> Option<&'static str> {
        TRIPLES.iter().find(|(machine, _)| *machine == self.machine).map(|(_, name)| *name)
    }

    /// Whether it runs on any Linux of its machine: it names no interpreter and needs no library.
    pub fn is_static(&self) -> bool {
        !self.interpreter && self.needed == 0
    }
}

fn read(file: &Fields<'_>) -> Option<Elf> {
    let mut elf = Elf { machine: file.half(18)?, interpreter: false, needed: 0, executable_stack: false };
    let table = file.offset(file.pick(32, 28))?;
    let size = usize::from(file.half(file.pick(54, 42))?);
    let count = usize::from(file.half(file.pick(56, 44))?);
    for index in 0..count {
        let entry = table.checked_add(index.checked_mul(size)?)?;
        match file.word(entry)? {
            PT_INTERP => elf.interpreter = true,
            PT_DYNAMIC => {
                let offset = file.offset(entry.checked_add(file.pick(8, 4))?)?;
                let length = file.offset(entry.checked_add(file.pick(32, 16))?)?;
                elf.needed = needed(file, offset, length)?;
            }
            PT_GNU_STACK => {
                let flags = file.word(entry.checked_add(file.pick(4, 24))?)?;
                elf.executable_stack = flags & PF_X != 0;
            }
            _ => {}
        }
    }
    Some(elf)
}

fn needed(file: &Fields<'_>, offset: usize, length: usize) -> Option<usize> {
    let width = file.pick(16, 8);
    let mut count = 0;
    for index in 0..length / width {
        match file.address(offset.checked_add(index * width)?)? {
            DT_NULL => break,
            DT_NEEDED => count += 1,
            _ => {}
        }
    }
    Some(count)
}

/// The executable without what only linkers and debuggers read: the table of sections and what lies behind the last
/// segment. A file that is no such executable stays as it is.
pub fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    if Elf::parse(&bytes).is_ok()
        && let Some(end) = end_of_segments(&Fields { bytes: &bytes, wide: bytes[4] == 2 })
    {
        bytes.truncate(end);
        // Where the table is, how long its entries are, how many they are, and which has the names.
        let (table, numbers) = if bytes[4] == 2 { (40..48, 58..64) } else { (32..36, 46..52) };
        bytes[table].fill(0);
        bytes[numbers].fill(0);
    }
    bytes
}

/// Where the last segment ends; at least behind the header, so that there is one to change.
fn end_of_segments(file: &Fields<'_>) -> Option<usize> {
    let table = file.offset(file.pick(32, 28))?;
    let size = usize::from(file.half(file.pick(54, 42))?);
    let count = usize::from(file.half(file.pick(56, 44))?);
    let mut end = table.checked_add(size.checked_mul(count)?)?;
    for index in 0..count {
        let entry = table.checked_add(index.checked_mul(size)?)?;
        let offset = file.offset(entry.checked_add(file.pick(8, 4))?)?;
        let length = file.offset(entry.checked_add(file.pick(32, 16))?)?;
        end = end.max(offset.checked_add(length)?);
    }
    (64..=file.bytes.len()).contains(&end).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_test_is_dynamic_and_of_this_machine() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let elf = Elf::parse(&bytes).unwrap();
        let machine = if cfg!(target_arch = "x86_64") { 62 } else { elf.machine };
        assert_eq!(elf.machine, machine);
        assert!(elf.interpreter && elf.needed > 0);
        assert!(!elf.executable_stack);
    }

    #[test]
    fn what_is_trimmed_is_shorter_and_runs_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("true");
        let before = std::fs::read("/bin/true").unwrap();
        let after = trimmed(before.clone());
        assert!(after.len() < before.len());
        assert_eq!(Elf::parse(&after).unwrap(), Elf::parse(&before).unwrap());
        std::fs::write(&program, &after).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert!(std::process::Command::new(&program).status().unwrap().success());
        // Nothing more to take, and nothing of what is no executable.
        assert_eq!(trimmed(after.clone()), after);
        assert_eq!(trimmed(b"#!/bin/sh\n".to_vec()), b"#!/bin/sh\n");
        assert_eq!(trimmed(before[..100].to_vec()), before[..100]);
    }

    #[test]
    fn a_cut_or_foreign_file_is_an_error() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        assert!(Elf::parse(&bytes[..100]).is_err());
        assert!(Elf::parse(b"#!/bin/sh").is_err());
        assert!(Elf::parse(b"\x7fELF").is_err());
        let mut lying = bytes[..4096].to_vec();
        lying[32..40].fill(0xff);
        assert!(Elf::parse(&lying).is_err());
    }
}
