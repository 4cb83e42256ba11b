//! Making x86 code compress better: what instructions do and what they do it to lie apart.
//!
//! Code repeats itself, and so do the places that it calls, the offsets at which it keeps things and the distances that
//! it jumps; but not in step. So each kind of operand gets a stream of its own, and those that say how far away something
//! is say where it is instead: LZMA finds a twelfth less to say of an agent.
//!
//! Instructions are read by their shape alone. What is no instruction, or one that is not known here, is read as some
//! other: both directions read it alike, so any bytes whatsoever come back.
//!
//! The form between: [`HEAD`] bytes of lengths (where the code begins, then how long each stream is), what lies before
//! the code, the streams, what lies behind.

/// Bytes that the form between is longer than the agent.
pub const HEAD: usize = 4 * (1 + STREAMS);

/// Which code the operands belong to decides their stream.
const STREAMS: usize = 10;
/// Prefixes, opcodes and what follows them to name operands.
const CODE: usize = 0;
const JUMP8: usize = 1;
const JUMP32: usize = 2;
const CALL: usize = 3;
/// Offsets: four bytes two places behind one. On the stack another program's offsets, as it were.
const OFFSET8: usize = 4;
const STACK8: usize = 5;
const OFFSET32: usize = 6;
const STACK32: usize = 7;
const VALUE8: usize = 8;
const VALUE32: usize = 9;

/// One direction of the transformation. Where there is nothing more, something is made up, and who goes through the
/// instructions finds out.
trait Way {
    /// The next byte of an instruction, which stays among the code; or of an operand, which goes to this stream or comes
    /// from it.
    fn byte(&mut self, stream: usize) -> u8;
    /// The next four bytes of an operand. When it is relative, where it leads takes the place of how far away that is.
    fn word(&mut self, stream: usize, relative: bool);
}

/// Whether the opcode has its bit in a map of all.
fn among(map: &[u32; 8], opcode: u8) -> bool {
    map[usize::from(opcode >> 5)] >> (opcode & 31) & 1 != 0
}

/// Opcodes of one byte behind which a byte names the operands.
const NAMED: [u32; 8] = [0x0f0f_0f0f, 0x0f0f_0f0f, 0, 0x0000_0a08, 0x0000_ffff, 0, 0xff0f_00c3, 0xc0c0_0000];
/// Those whose operand is one byte.
const ONE: [u32; 8] = [0x1010_1010, 0x1010_1010, 0, 0xffff_0c00, 0x0000_000d, 0x00ff_0100, 0x0030_2143, 0x0000_08ff];

/// Moves one instruction. At most [`LONGEST`] bytes of the agent.
fn instruction(way: &mut impl Way, wide: bool) {
    let (mut short, mut long) = (false, false);
    let mut opcode = way.byte(CODE);
    for _ in 0..4 {
        match opcode {
            0x66 => short = true,
            0xf0 | 0xf2 | 0xf3 => {}
            0x40..0x50 if wide => long = opcode & 8 != 0,
            _ => break,
        }
        opcode = way.byte(CODE);
    }
    // How many bytes the value has, whose stream may be that of distances.
    let (mut value8, mut value32) = (VALUE8, VALUE32);
    let (named, mut bytes, mut words);
    if opcode == 0x0f {
        opcode = way.byte(CODE);
        bytes = matches!(opcode, 0x3a | 0x70..0x74 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..0xc7).into();
        words = usize::from(opcode & 0xf0 == 0x80);
        value32 = JUMP32;
        if opcode & 0xfd == 0x38 {
            way.byte(CODE);
        }
        named = !matches!(opcode, 0x05..0x0c | 0x30..0x38 | 0x77 | 0x80..0x90 | 0xa0..0xa3 | 0xa8..0xab | 0xc8..0xd0);
    } else {
        named = among(&NAMED, opcode);
        bytes = among(&ONE, opcode).into();
        words = match opcode {
            0x68 | 0x69 | 0x81 | 0xa9 | 0xc7 => 1,
            0xe8 | 0xe9 => {
                value32 = if opcode == 0xe8 { CALL } else { JUMP32 };
                1
            }
            0xb8..0xc0 => 1 + usize::from(long),
            // An address alone, as 32 bits have it.
            0xa0..0xa4 => usize::from(!wide),
            _ => usize::from(opcode & 0xc7 == 5),
        };
        if matches!(opcode, 0x70..0x80 | 0xe0..0xe4 | 0xeb) {
            value8 = JUMP8;
        }
    }
    let relative = value32 != VALUE32;
    if named {
        let names = way.byte(CODE);
        let (mode, mut base) = (names >> 6, names & 7);
        let (mut offset8, mut offset32) = (OFFSET8, OFFSET32);
        let scaled = mode != 3 && base == 4;
        if scaled {
            base = way.byte(CODE) & 7;
            if base == 4 {
                (offset8, offset32) = (STACK8, STACK32);
            }
        }
        match mode {
            1 => drop(way.byte(offset8)),
            2 => way.word(offset32, false),
            // No base; on 64 bits then the place of the instruction is the base.
            0 if base == 5 => way.word(offset32, wide && !scaled),
            _ => {}
        }
        // The two kinds of `test` have a value, their six neighbours have none.
        if opcode & 0xfe == 0xf6 && names & 0x30 == 0 {
            (bytes, words) = if opcode == 0xf6 { (1, 0) } else { (0, 1) };
        }
    }
    if short && !relative {
        (bytes, words) = (bytes + 2 * words, 0);
    }
    for _ in 0..bytes {
        way.byte(value8);
    }
    for _ in 0..words {
        way.word(value32, relative);
    }
}

/// Puts the agent together again: the whole of `dst` from the whole of `src`, which is [`HEAD`] bytes longer. Nothing
/// when it does not come out so; time is linear in their lengths all the same.
pub fn join(src: &[u8], dst: &mut [u8], wide: bool) -> Option<()> {
    let mut next = HEAD;
    let mut begin = [0; 1 + STREAMS];
    // Lengths that lie make streams that end early or overlap.
    for (begin, len) in begin.iter_mut().zip(src.as_chunks::<4>().0) {
        *begin = next;
        next = next.wrapping_add(u32::from_le_bytes(*len) as usize);
    }
    let [before, from @ ..] = begin;
    let [_, code_end, ..] = from;
    let mut join = Join { src, dst, at: 0, from, damaged: false };
    // What lies before the code is the code's stream, backwards; what lies behind takes its place.
    join.from[CODE] = before;
    join.copy(from[CODE]);
    while join.from[CODE] < code_end && !join.damaged {
        instruction(&mut join, wide);
    }
    join.from[CODE] = next;
    join.copy(src.len());
    (!join.damaged && join.at == join.dst.len()).then_some(())
}

struct Join<'a> {
    src: &'a [u8],
    dst: &'a mut [u8],
    at: usize,
    /// Where each stream goes on.
    from: [usize; STREAMS],
    /// Something went beyond the end of `src` or `dst`.
    damaged: bool,
}

impl Join<'_> {
    /// What lies where the code's stream goes on, as it is.
    fn copy(&mut self, end: usize) {
        while self.from[CODE] < end && !self.damaged {
            self.byte(CODE);
        }
    }
}

impl Way for Join<'_> {
    #[inline(never)]
    fn byte(&mut self, stream: usize) -> u8 {
        let from = &mut self.from[stream];
        let (Some(to), Some(byte)) = (self.dst.get_mut(self.at), self.src.get(*from)) else {
            self.damaged = true;
            return 0;
        };
        *to = *byte;
        *from += 1;
        self.at += 1;
        *byte
    }

    fn word(&mut self, stream: usize, relative: bool) {
        let (here, from) = (self.at, &mut self.from[stream]);
        let to = self.dst.get_mut(here..).and_then(|rest| rest.first_chunk_mut());
        let (Some(to), Some(word)) = (to, self.src.get(*from..).and_then(|rest| rest.first_chunk())) else {
            self.damaged = true;
            return;
        };
        let there = if relative { here as u32 } else { 0 };
        *to = u32::from_be_bytes(*word).wrapping_sub(there).to_le_bytes();
        *from += 4;
        self.at += 4;
    }
}

/// More than any instruction has bytes, as it is read here: five for prefixes and opcode, two more, two that name
/// operands, an offset and a value of eight.
#[cfg(not(offshoot_stage))]
const LONGEST: usize = 32;

/// Takes an agent apart whose code lies at `code`; a range that does not lie within it is cut. At most 1 GiB.
#[cfg(not(offshoot_stage))]
pub fn split(src: &[u8], code: std::ops::Range<usize>, wide: bool) -> Vec<u8> {
    let end = code.end.min(src.len());
    let start = code.start.min(end);
    let mut split = Split { src, at: start, streams: Default::default() };
    // The last ones stay as they are, so that no instruction can reach beyond the end.
    while split.at + LONGEST <= end {
        instruction(&mut split, wide);
    }
    let Split { at, streams, .. } = split;
    let lengths = std::iter::once(start).chain(streams.iter().map(Vec::len));
    let mut out: Vec<u8> = lengths.flat_map(|len| (len as u32).to_le_bytes()).collect();
    out.extend(&src[..start]);
    out.extend(streams.iter().flatten());
    out.extend(&src[at..]);
    out
}

#[cfg(not(offshoot_stage))]
struct Split<'a> {
    src: &'a [u8],
    at: usize,
    streams: [Vec<u8>; STREAMS],
}

#[cfg(not(offshoot_stage))]
impl Split<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let bytes = self.src.get(self.at..).and_then(|rest| rest.first_chunk()).copied();
        self.at += N;
        bytes.unwrap_or([0; N])
    }
}

#[cfg(not(offshoot_stage))]
impl Way for Split<'_> {
    fn byte(&mut self, stream: usize) -> u8 {
        let [byte] = self.take();
        self.streams[stream].push(byte);
        byte
    }

    fn word(&mut self, stream: usize, relative: bool) {
        let here = if relative { self.at as u32 } else { 0 };
        let word = u32::from_le_bytes(self.take()).wrapping_add(here);
        self.streams[stream].extend(word.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn joined(form: &[u8], wide: bool) -> Option<Vec<u8>> {
        let mut whole = vec![0xaa; form.len().checked_sub(HEAD)?];
        join(form, &mut whole, wide).map(|()| whole)
    }

    /// Bytes among which prefixes, opcodes and what names operands are frequent.
    fn codelike() -> impl Strategy<Value = Vec<u8>> {
        const FREQUENT: [u8; 17] =
            [0, 5, 0x0f, 0x24, 0x38, 0x3a, 0x44, 0x48, 0x66, 0x84, 0x85, 0xb8, 0xe8, 0xeb, 0xf3, 0xf6, 0xff];
        proptest::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&FREQUENT[..])], 0..600)
    }

    proptest! {
        #[test]
        fn what_was_split_is_joined_again(data in codelike(), a in 0usize..650, b in 0usize..650, wide in any::<bool>()) {
            let form = split(&data, a..b, wide);
            prop_assert_eq!(form.len(), data.len() + HEAD);
            prop_assert_eq!(joined(&form, wide), Some(data));
        }

        #[test]
        fn what_was_never_split_is_refused_or_joined_within_bounds(
            lengths in proptest::collection::vec(prop_oneof![0u32..80, any::<u32>()], 1 + STREAMS),
            data in codelike(),
            len in 0usize..700,
            wide in any::<bool>(),
        ) {
            let mut form: Vec<u8> = lengths.iter().flat_map(|len| len.to_le_bytes()).collect();
            form.extend(&data);
            // Nothing is taken twice but by streams that overlap.
            if join(&form, &mut vec![0; len], wide).is_some() {
                prop_assert!(len <= form.len() * (1 + STREAMS));
            }
        }
    }

    /// The streams that an instruction at 0x40 is split into, by number; what is left out is empty.
    #[track_caller]
    fn check(wide: bool, instruction: &[u8], expected: &[(usize, &[u8])]) {
        let mut data = vec![0x90; 0x40];
        data.extend(instruction);
        let end = data.len();
        // Behind it, that it is not among the last ones, which stay as they are.
        data.resize(end + LONGEST - instruction.len(), 0x90);
        let form = split(&data, 0x40..data.len(), wide);
        let length = |at: usize| u32::from_le_bytes(*form[4 * at..].first_chunk().unwrap()) as usize;
        let mut rest = &form[HEAD + length(0)..];
        for stream in 0..STREAMS {
            let bytes = expected.iter().find(|(at, _)| *at == stream).map_or(&[][..], |(_, bytes)| bytes);
            assert_eq!(rest.split_off(..length(1 + stream)).unwrap(), bytes, "stream {stream} of {instruction:02x?}");
        }
        assert_eq!(joined(&form, wide), Some(data));
    }

    #[test]
    fn operands_go_to_the_stream_of_their_kind() {
        // mov rax, [rsp + 0x10]; mov rax, [rbx + 0x10]; the same with long offsets
        check(true, &[0x48, 0x8b, 0x44, 0x24, 0x10], &[(CODE, &[0x48, 0x8b, 0x44, 0x24]), (STACK8, &[0x10])]);
        check(true, &[0x48, 0x8b, 0x43, 0x10], &[(CODE, &[0x48, 0x8b, 0x43]), (OFFSET8, &[0x10])]);
        check(true, &[0x8b, 0x84, 0x24, 1, 2, 0, 0], &[(CODE, &[0x8b, 0x84, 0x24]), (STACK32, &[0, 0, 2, 1])]);
        check(true, &[0x8b, 0x83, 1, 2, 0, 0], &[(CODE, &[0x8b, 0x83]), (OFFSET32, &[0, 0, 2, 1])]);
        // call, jmp, jne, far and near: by where they lead to, from the operand's place on
        check(true, &[0xe8, 5, 0, 0, 0], &[(CODE, &[0xe8]), (CALL, &[0, 0, 0, 0x46])]);
        check(true, &[0xe9, 0xff, 0xff, 0xff, 0xff], &[(CODE, &[0xe9]), (JUMP32, &[0, 0, 0, 0x40])]);
        check(true, &[0x0f, 0x85, 0, 1, 0, 0], &[(CODE, &[0x0f, 0x85]), (JUMP32, &[0, 0, 1, 0x42])]);
        check(true, &[0x75, 0xfe], &[(CODE, &[0x75]), (JUMP8, &[0xfe])]);
        // mov rax, [rip + 5], and on 32 bits an address
        check(true, &[0x8b, 5, 5, 0, 0, 0], &[(CODE, &[0x8b, 5]), (OFFSET32, &[0, 0, 0, 0x47])]);
        check(false, &[0x8b, 5, 5, 0, 0, 0], &[(CODE, &[0x8b, 5]), (OFFSET32, &[0, 0, 0, 5])]);
        check(false, &[0xa1, 5, 0, 0, 0], &[(CODE, &[0xa1]), (VALUE32, &[0, 0, 0, 5])]);
        // mov edi, 7; mov rdi, 7 in full; mov di, 7
        check(true, &[0xbf, 7, 0, 0, 0], &[(CODE, &[0xbf]), (VALUE32, &[0, 0, 0, 7])]);
        check(
            true,
            &[0x48, 0xbf, 7, 0, 0, 0, 8, 0, 0, 0],
            &[(CODE, &[0x48, 0xbf]), (VALUE32, &[0, 0, 0, 7, 0, 0, 0, 8])],
        );
        check(true, &[0x66, 0xbf, 7, 0], &[(CODE, &[0x66, 0xbf]), (VALUE8, &[7, 0])]);
        // dec eax on 32 bits is a prefix on 64
        check(false, &[0x48], &[(CODE, &[0x48])]);
        // test byte [rbx + 1], 2 has a value; not byte [rbx + 1] has none
        check(true, &[0xf6, 0x43, 1, 2], &[(CODE, &[0xf6, 0x43]), (OFFSET8, &[1]), (VALUE8, &[2])]);
        check(true, &[0xf6, 0x53, 1], &[(CODE, &[0xf6, 0x53]), (OFFSET8, &[1])]);
        // cmp dword [rsp + 8], 0x100; ud2; sha256rnds2; palignr
        check(
            true,
            &[0x81, 0x7c, 0x24, 8, 0, 1, 0, 0],
            &[(CODE, &[0x81, 0x7c, 0x24]), (STACK8, &[8]), (VALUE32, &[0, 0, 1, 0])],
        );
        check(true, &[0x0f, 0x0b], &[(CODE, &[0x0f, 0x0b])]);
        check(true, &[0x0f, 0x38, 0xcb, 0xc1], &[(CODE, &[0x0f, 0x38, 0xcb, 0xc1])]);
        check(true, &[0x66, 0x0f, 0x3a, 0x0f, 0xc1, 4], &[(CODE, &[0x66, 0x0f, 0x3a, 0x0f, 0xc1]), (VALUE8, &[4])]);
    }

    #[test]
    fn lengths_that_lie_are_noticed() {
        let form = split(&[0x90; 100], 0..100, true);
        assert!(joined(&form, true).is_some());
        for at in 0..=STREAMS {
            let mut form = form.clone();
            form[4 * at..4 * at + 4].fill(0x7f);
            assert_eq!(joined(&form, true), None, "length {at}");
        }
        for len in [0, 99, 101] {
            assert_eq!(join(&form, &mut vec![0; len], true), None, "{len} bytes");
        }
    }
}
