//! What both executables begin with: the ELF header, the entry, the arguments, the report of a failure.

use crate::sys;

/// The arguments and environment as the kernel leaves them on the stack.
pub struct Args {
    /// `argv`, null-terminated; it has at least two elements.
    pub argv: *const *const u8,
    /// The environment, null-terminated.
    pub envp: *const *const u8,
    /// `argv[0]` when that is an absolute path, which is now free: the loader's own file, unlinked.
    pub path: Option<*const u8>,
}

/// Reads the arguments; ends the process at once when it is only a test.
///
/// # Safety
///
/// `stack` must be the stack pointer that the kernel started the process with.
pub unsafe fn args(stack: *const usize) -> Args {
    // SAFETY: the kernel's layout: count, argv, null, environment, null.
    unsafe {
        let count = *stack;
        if count < 2 {
            sys::exit(64);
        }
        let argv = stack.add(1) as *const *const u8;
        let name = *argv.add(1);
        if *name == b't' && *name.add(1) == 0 {
            sys::exit(0);
        }
        let own = *argv;
        let path = (*own == b'/').then_some(own);
        if let Some(path) = path {
            sys::unlink(path);
        }
        Args { argv, envp: argv.add(count + 1), path }
    }
}

/// Reports a failure and ends the process: `errno` is negative or zero.
pub fn fail(letter: u8, errno: isize) -> ! {
    let mut line = *b"\n!L?000\n";
    line[3] = letter;
    let mut rest = errno.unsigned_abs();
    for (digit, unit) in line[4..].iter_mut().zip(&[100, 10, 1]) {
        // By subtraction: not every machine divides.
        while rest >= *unit {
            rest -= unit;
            *digit += 1;
        }
    }
    sys::write(1, &line);
    sys::exit(usize::from(letter))
}

/// The raw file begins with this, by hand: one segment, and nothing that only a linker or debugger needs.
///
/// Kernels before 5.8 make memory executable for a program that does not say that its stack is not; some security
/// modules then refuse it memory, so the one that asks for memory says it (`$stack`).
#[macro_export]
macro_rules! executable {
    (stack: $stack:literal) => {
        #[cfg(target_pointer_width = "64")]
        core::arch::global_asm!(
            ".section .header, \"a\"",
            ".byte 0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0",
            ".8byte 0",
            ".2byte 2, {machine}",
            ".4byte 1",
            ".8byte _start, 64, 0",
            ".4byte {flags}",
            ".2byte 64, 56, 1 + {stack}, 0, 0, 0",
            ".4byte 1, 5",
            ".8byte 0, image_start, image_start, image_size, image_size, 0x10000",
            ".if {stack}",
            ".4byte 0x6474e551, 6",
            ".8byte 0, 0, 0, 0, 0, 16",
            ".endif",
            ".text",
            stack = const $stack as usize,
            machine = const $crate::start::MACHINE,
            flags = const $crate::start::FLAGS,
        );

        #[cfg(target_pointer_width = "32")]
        core::arch::global_asm!(
            ".section .header, \"a\"",
            ".byte 0x7f, 0x45, 0x4c, 0x46, 1, 1, 1, 0",
            ".4byte 0, 0",
            ".2byte 2, {machine}",
            ".4byte 1, _start, 52, 0, {flags}",
            ".2byte 52, 32, 1 + {stack}, 0, 0, 0",
            ".4byte 1, 0, image_start, image_start, image_size, image_size, 5, 0x10000",
            ".if {stack}",
            ".4byte 0x6474e551, 0, 0, 0, 0, 0, 6, 16",
            ".endif",
            ".text",
            stack = const $stack as usize,
            machine = const $crate::start::MACHINE,
            flags = const $crate::start::FLAGS,
        );

        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
            $crate::sys::exit(1)
        }
    };
}

/// The architecture's number in an ELF header, and its flags.
#[cfg(target_arch = "x86_64")]
pub const MACHINE: u16 = 62;
/// The architecture's number in an ELF header, and its flags.
#[cfg(target_arch = "aarch64")]
pub const MACHINE: u16 = 183;
/// The architecture's number in an ELF header, and its flags.
#[cfg(target_arch = "riscv64")]
pub const MACHINE: u16 = 243;
/// The architecture's number in an ELF header, and its flags.
#[cfg(target_arch = "x86")]
pub const MACHINE: u16 = 3;
/// The architecture's number in an ELF header, and its flags.
#[cfg(target_arch = "arm")]
pub const MACHINE: u16 = 40;

/// The ELF header's flags: version 5 of the ARM EABI, hard float; RISC-V with compressed instructions, double float.
#[cfg(target_arch = "arm")]
pub const FLAGS: u32 = 0x0500_0400;
/// The ELF header's flags: version 5 of the ARM EABI, hard float; RISC-V with compressed instructions, double float.
#[cfg(target_arch = "riscv64")]
pub const FLAGS: u32 = 5;
/// The ELF header's flags: none.
#[cfg(not(any(target_arch = "arm", target_arch = "riscv64")))]
pub const FLAGS: u32 = 0;

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".section .text._start, \"ax\"",
    ".globl _start",
    "_start: mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym entry,
);

#[cfg(target_arch = "x86")]
core::arch::global_asm!(
    ".section .text._start, \"ax\"",
    ".globl _start",
    "_start: mov eax, esp",
    "and esp, -16",
    "sub esp, 12",
    "push eax",
    "call {main}",
    "ud2",
    main = sym entry,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".section .text._start, \"ax\"",
    ".globl _start",
    "_start: mov x0, sp",
    "bl {main}",
    main = sym entry,
);

#[cfg(target_arch = "riscv64")]
core::arch::global_asm!(
    ".section .text._start, \"ax\"",
    ".globl _start",
    "_start: mv a0, sp",
    "call {main}",
    main = sym entry,
);

#[cfg(target_arch = "arm")]
core::arch::global_asm!(
    ".section .text._start, \"ax\"",
    ".arm",
    ".globl _start",
    ".type _start, %function",
    "_start: mov r0, sp",
    "bl {main}",
    main = sym entry,
);

unsafe extern "Rust" {
    /// What the executable does, given the stack pointer of the process's start.
    fn loader_main(stack: *const usize) -> !;
}

unsafe extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: called by `_start` alone, with the kernel's stack pointer; both executables define the function so.
    unsafe { loader_main(stack) }
}
