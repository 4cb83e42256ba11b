//! Stage 0: reads stage 1 and becomes it.

#![cfg_attr(offshoot_stage, no_std, no_main)]
#![allow(unexpected_cfgs, reason = "offshoot_stage is given by `offshoot_loader::build` alone")]

#[cfg(offshoot_stage)]
mod freestanding {
    use core::mem::MaybeUninit;

    use offshoot_loader::{executable, place, start, sys};

    executable!(stack: false);

    /// Room for stage 1: its limit.
    const ROOM: usize = 8192;
    /// The part of an ELF header that has the length of the only segment.
    const HEAD: usize = 0x70;

    /// Where a raw executable of this crate says how long it is.
    #[cfg(target_pointer_width = "64")]
    const LENGTH_AT: usize = 0x60;
    #[cfg(target_pointer_width = "32")]
    const LENGTH_AT: usize = 0x44;

    /// # Safety
    ///
    /// `stack` must be the stack pointer that the kernel started the process with.
    #[unsafe(no_mangle)]
    unsafe fn loader_main(stack: *const usize) -> ! {
        // Its bytes are read before they are used, and zeroing it would cost a call of memset.
        let mut image = MaybeUninit::<[u8; ROOM]>::uninit();
        let image = image.as_mut_ptr().cast::<u8>();
        // SAFETY: the caller's promise; and `image` has `ROOM` bytes, of which `len` are written before they are read.
        unsafe {
            let args = start::args(stack);
            let read = |from: usize, to: usize| {
                if let Err(errno) = sys::read(image.add(from), to - from) {
                    start::fail(b'r', errno);
                }
            };
            read(0, HEAD);
            let len = image.add(LENGTH_AT).cast::<u32>().read_unaligned() as usize;
            if !(HEAD..=ROOM).contains(&len) {
                start::fail(b'r', sys::EINVAL);
            }
            read(HEAD, len);
            let image = core::slice::from_raw_parts(image, len);
            start::fail(b'x', place::become_program::<false>(image, args.argv, args.envp, args.path))
        }
    }
}

#[cfg(not(offshoot_stage))]
fn main() {
    eprintln!("this is a part of a loader: it is built by offshoot_loader::build");
}
