//! Stage 1: reads the header and the deflated agent, checks it and becomes it.

#![cfg_attr(offshoot_stage, no_std, no_main)]
#![allow(unexpected_cfgs, reason = "offshoot_stage is given by `offshoot_loader::build` alone")]

#[cfg(offshoot_stage)]
mod freestanding {
    use core::mem::MaybeUninit;

    use offshoot_loader::{executable, inflate::inflate, place, sha256, start, sys};

    executable!(stack: true);

    /// What the payload begins with: `OFS1`, lengths in little endian, hash.
    #[repr(C)]
    struct Header {
        magic: u32,
        deflated: u32,
        agent: u32,
        hash: [u32; 8],
    }

    const MAGIC: u32 = u32::from_le_bytes(*b"OFS1");

    /// # Safety
    ///
    /// `stack` must be the stack pointer that the kernel started the process with.
    #[unsafe(no_mangle)]
    unsafe fn loader_main(stack: *const usize) -> ! {
        // SAFETY: the caller's promise; any bytes are a header; and the memory asked for is as long as its two parts.
        unsafe {
            let args = start::args(stack);
            let read = |to: *mut u8, len: usize| {
                if let Err(errno) = sys::read(to, len) {
                    start::fail(b'R', errno);
                }
            };
            let mut header = MaybeUninit::<Header>::uninit();
            read(header.as_mut_ptr().cast(), size_of::<Header>());
            let header = header.assume_init_ref();
            if header.magic != MAGIC {
                start::fail(b'M', 0);
            }
            let (deflated, agent) = (header.deflated as usize, header.agent as usize);
            // Limits of the bundle; within them no sum below wraps, on 32 bits either.
            if deflated > 64 << 20 || agent > 256 << 20 {
                start::fail(b'A', 0);
            }
            let room = sha256::padded(agent) + deflated;
            let memory = sys::memory(room);
            // Errors are the last page of addresses, and a 32-bit address can look negative.
            if memory as usize > -4096isize as usize {
                start::fail(b'A', memory);
            }
            let memory = memory as *mut u8;
            read(memory, deflated);
            let output = memory.add(deflated);
            let input = core::slice::from_raw_parts(memory, deflated);
            if inflate(input, core::slice::from_raw_parts_mut(output, agent)).is_err() {
                start::fail(b'Z', 0);
            }
            let message = core::slice::from_raw_parts_mut(output, sha256::padded(agent));
            if sha256::sha256(message, agent).iter().zip(&header.hash).any(|(is, should)| *is != should.swap_bytes()) {
                start::fail(b'H', 0);
            }
            let image = core::slice::from_raw_parts(output, agent);
            start::fail(b'X', place::become_program::<true>(image, args.argv.add(1), args.envp, args.path))
        }
    }
}

#[cfg(not(offshoot_stage))]
fn main() {
    eprintln!("this is a part of a loader: it is built by offshoot_loader::build");
}
