//! Stage 1: reads the header and the packed agent, checks it and becomes it.

#![cfg_attr(offshoot_stage, no_std, no_main)]
#![allow(unexpected_cfgs, reason = "offshoot_stage is given by `offshoot_loader::build` alone")]

#[cfg(offshoot_stage)]
mod freestanding {
    use core::mem::MaybeUninit;

    use offshoot_loader::unpack::{PROBABILITIES, room_between, unpack};
    use offshoot_loader::{executable, place, sha256, start, sys};

    executable!(stack: true);

    /// What the payload begins with: `OFS2`, lengths in little endian, how it is packed, hash.
    #[repr(C)]
    struct Header {
        magic: u32,
        packed: u32,
        agent: u32,
        properties: u8,
        filter: u8,
        unused: [u8; 2],
        hash: [u32; 8],
    }

    const MAGIC: u32 = u32::from_le_bytes(*b"OFS2");

    /// How much is read at once; a pipe gives no more.
    const CHUNK: usize = 1 << 16;

    /// The packed agent, read as it is needed: most of the work is done while the rest is on its way.
    struct Packed {
        buffer: *mut u8,
        at: usize,
        have: usize,
        /// Not yet read.
        left: usize,
    }

    impl Packed {
        /// The next byte; behind the end, 0.
        ///
        /// # Safety
        ///
        /// `CHUNK` bytes at `buffer` must be nobody else's.
        #[inline(never)]
        unsafe fn next(&mut self) -> u8 {
            if self.at == self.have {
                if self.left == 0 {
                    return 0;
                }
                // SAFETY: the caller's promise.
                let got = unsafe { sys::read_some(self.buffer, self.left.min(CHUNK)) };
                if got <= 0 {
                    start::fail(b'R', got);
                }
                self.have = got as usize;
                self.left -= self.have;
                self.at = 0;
            }
            // SAFETY: below `have`, which the kernel wrote.
            let byte = unsafe { *self.buffer.add(self.at) };
            self.at += 1;
            byte
        }
    }

    /// # Safety
    ///
    /// `stack` must be the stack pointer that the kernel started the process with.
    #[unsafe(no_mangle)]
    unsafe fn loader_main(stack: *const usize) -> ! {
        // SAFETY: the caller's promise; any bytes are a header, and any probabilities; and the memory asked for is as long
        // as its four parts, of which the first begins a page.
        unsafe {
            let args = start::args(stack);
            let mut header = MaybeUninit::<Header>::uninit();
            if let Err(errno) = sys::read(header.as_mut_ptr().cast(), size_of::<Header>()) {
                start::fail(b'R', errno);
            }
            let header = header.assume_init_ref();
            if header.magic != MAGIC {
                start::fail(b'M', 0);
            }
            let (packed, agent) = (header.packed as usize, header.agent as usize);
            // Limits of the bundle; within them no sum below wraps, on 32 bits either.
            if packed > 64 << 20 || agent > 256 << 20 {
                start::fail(b'A', 0);
            }
            let between = room_between(agent);
            let lengths = [size_of::<[u16; PROBABILITIES]>(), CHUNK, between, sha256::padded(agent)];
            let memory = sys::memory(lengths.iter().sum());
            // Errors are the last page of addresses, and a 32-bit address can look negative.
            if memory as usize > -4096isize as usize {
                start::fail(b'A', memory);
            }
            let probabilities = &mut *(memory as *mut [u16; PROBABILITIES]);
            let buffer = (memory as *mut u8).add(size_of::<[u16; PROBABILITIES]>());
            let between = core::slice::from_raw_parts_mut(buffer.add(CHUNK), between);
            let output = buffer.add(CHUNK + between.len());
            let mut input = Packed { buffer, at: 0, have: 0, left: packed };
            let dst = core::slice::from_raw_parts_mut(output, agent);
            let unpacked = unpack(header.properties, header.filter, || input.next(), probabilities, between, dst);
            // What is left over is damage too, but not the agent's to read.
            if unpacked.is_err() || input.left > 0 || input.at < input.have {
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
