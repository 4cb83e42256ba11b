//! Packing an agent as stage 1 unpacks it: for whoever builds bundles. On any thread.

use std::io::{self, Write};
use std::ops::Range;

use lzma_rust2::{EncodeMode, LzmaOptions, LzmaWriter, MfType};

use crate::{filter, split};

/// An agent as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The stream, without header.
    pub bytes: Vec<u8>,
    /// What [`lzma::decode`](crate::lzma::decode) needs to know.
    pub properties: u8,
    /// What was done to the agent before: one of [`filter`]'s numbers.
    pub filter: u8,
}

/// `lc`, `lp` and `pb` that came out best for something: code taken apart; code of bytes, of halfwords, of words; text.
const CHOICES: [(u32, u32, u32); 7] = [(2, 0, 2), (4, 0, 0), (3, 0, 0), (3, 1, 1), (2, 1, 1), (2, 2, 2), (1, 2, 2)];

/// From how many bytes on the choice is made by a sample: to try all on 8 MiB takes half a minute of a processor, and what the
/// sample chooses is at most a hundredth larger.
const SAMPLED: usize = 1 << 20;

/// The sample: so many pieces of so many bytes, from all over.
const PIECES: (usize, usize) = (16, 32 << 10);

/// Packs `agent` as small as can be: half a second for 400 KiB in an optimized build; an image beyond 1 MiB nearly so, in two
/// thirds of a second for each MiB.
///
/// # Errors
///
/// The encoder's; none is known for data in memory.
pub fn pack(agent: &[u8]) -> io::Result<Packed> {
    pack_through(filters(agent), agent)
}

/// Packs `agent` through the best of these filters, for a stage 1 that knows them.
///
/// # Errors
///
/// As [`pack`], and when a filter is unknown or there is none.
pub fn pack_through(filters: &[u8], agent: &[u8]) -> io::Result<Packed> {
    let mut best: Option<Packed> = None;
    for filter in filters {
        let Some(data) = filtered(*filter, agent) else { break };
        let choices = if data.len() > SAMPLED { vec![chosen(&sample(&data))?] } else { CHOICES.to_vec() };
        for (lc, lp, pb) in choices {
            let bytes = encode(&data, lc, lp, pb)?;
            if best.as_ref().is_none_or(|best| bytes.len() < best.bytes.len()) {
                best = Some(Packed { bytes, properties: (lc | lp << 3 | pb << 6) as u8, filter: *filter });
            }
        }
    }
    best.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no filter, or an unknown one"))
}

/// Pieces of it that lie at equal distances.
fn sample(data: &[u8]) -> Vec<u8> {
    let (count, size) = PIECES;
    let step = data.len() / count;
    (0..count).flat_map(|piece| data[piece * step..].iter().take(size)).copied().collect()
}

/// What packs it best.
fn chosen(data: &[u8]) -> io::Result<(u32, u32, u32)> {
    let mut best = (usize::MAX, CHOICES[0]);
    for (lc, lp, pb) in CHOICES {
        best = best.min((encode(data, lc, lp, pb)?.len(), (lc, lp, pb)));
    }
    Ok(best.1)
}

/// The filters that may help, by the machine that an ELF header names. Stage 1 knows those of its own machine alone.
fn filters(agent: &[u8]) -> &'static [u8] {
    let machine = agent.get(18..20).filter(|_| agent.starts_with(b"\x7fELF"));
    match machine {
        Some([3, 0]) => &[filter::X86],
        Some([62, 0]) => &[filter::X86_64],
        Some([183, 0]) => &[filter::ARM64],
        Some([40, 0]) => &[filter::ARM, filter::THUMB],
        _ => &[filter::NONE],
    }
}

fn filtered(filter: u8, agent: &[u8]) -> Option<Vec<u8>> {
    if let Some(wide) = filter::splits(filter) {
        return Some(split::split(agent, code(agent).unwrap_or(0..agent.len()), wide));
    }
    let mut data = agent.to_vec();
    filter::apply(filter, &mut data).then_some(data)
}

/// Where an ELF file has its code: the first segment that is executable.
fn code(agent: &[u8]) -> Option<Range<usize>> {
    let wide = *agent.get(4)? == 2;
    let number = |at: usize, bytes: usize| {
        let field = agent.get(at..at.checked_add(bytes)?)?;
        field.iter().rev().try_fold(0usize, |sum, byte| Some(sum.checked_mul(256)? + usize::from(*byte)))
    };
    // Offsets of fields, then of the same in the longer form.
    let at = |narrow: usize, long: usize| if wide { long } else { narrow };
    let address = at(4, 8);
    let (table, size, count) = (number(at(28, 32), address)?, number(at(42, 54), 2)?, number(at(44, 56), 2)?);
    let executable = (0..count).map_while(|index| table.checked_add(index.checked_mul(size)?)).find(|segment| {
        let flags = segment.checked_add(at(24, 4)).and_then(|at| number(at, 4));
        number(*segment, 4) == Some(1) && flags.is_some_and(|flags| flags & 1 != 0)
    })?;
    let start = number(executable.checked_add(at(4, 8))?, address)?;
    let len = number(executable.checked_add(at(16, 32))?, address)?;
    Some(start..start.checked_add(len)?)
}

fn encode(data: &[u8], lc: u32, lp: u32, pb: u32) -> io::Result<Vec<u8>> {
    let mut options = LzmaOptions::with_preset(9);
    (options.lc, options.lp, options.pb) = (lc, lp, pb);
    (options.mode, options.mf) = (EncodeMode::Normal, MfType::Bt4);
    options.nice_len = LzmaOptions::NICE_LEN_MAX;
    options.depth_limit = 1000;
    options.dict_size = (data.len() as u32).next_power_of_two().clamp(1 << 16, 1 << 26);
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false)?;
    writer.write_all(data)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::unpacked;

    /// An executable by its header, and code by its look.
    fn executable(machine: u8) -> Vec<u8> {
        let mut agent = b"\x7fELF".to_vec();
        agent.resize(64, 0);
        agent[18] = machine;
        for n in 0..3000u32 {
            agent.extend((n.wrapping_mul(0x9e37_79b9) >> 7).to_le_bytes());
            agent.extend([0xe8, (n % 7) as u8, 0, 0, 0, 0x48, 0x89, 0x94, 0xeb, 0x0f, 0xf0, 0x12, 0xf8]);
        }
        agent
    }

    #[test]
    fn what_was_packed_comes_back_for_every_machine() {
        for (machine, filters) in [(62, 6..=6), (3, 5..=5), (183, 2..=2), (40, 3..=4), (243, 0..=0)] {
            let agent = executable(machine);
            let packed = pack(&agent).unwrap();
            assert!(filters.contains(&packed.filter), "machine {machine}: filter {}", packed.filter);
            assert!(packed.bytes.len() < agent.len());
            assert_eq!(unpacked(packed.properties, packed.filter, &packed.bytes, agent.len()), Ok(agent));
        }
        let text = b"no executable at all, no executable at all".repeat(20);
        let packed = pack(&text).unwrap();
        assert!(packed.filter == filter::NONE && packed.bytes.len() < 60, "{packed:?}");
        assert_eq!(unpacked(packed.properties, packed.filter, &packed.bytes, text.len()), Ok(text));
    }

    #[test]
    fn what_is_large_is_packed_by_what_packs_a_sample_of_it_best() {
        let mut image = executable(62);
        // Code, then text, so that a beginning alone says nothing of the whole.
        for n in 0u32.. {
            image.extend(format!("{:x} is a square; ", (n % 4096).pow(2)).bytes());
            if image.len() > SAMPLED + (100 << 10) {
                break;
            }
        }
        let packed = pack(&image).unwrap();
        let data = filtered(packed.filter, &image).unwrap();
        let least = CHOICES.iter().map(|&(lc, lp, pb)| encode(&data, lc, lp, pb).unwrap().len()).min().unwrap();
        // Programs are within a hundredth; this is made up. The worst choice is a twentieth larger.
        assert!(packed.bytes.len() <= least + least / 50, "{} bytes, {least} at least", packed.bytes.len());
        assert_eq!(unpacked(packed.properties, packed.filter, &packed.bytes, image.len()), Ok(image));
    }

    #[test]
    fn the_smallest_agents_are_packed() {
        for agent in [&[][..], b"x", b"\x7fELF"] {
            let packed = pack(agent).unwrap();
            assert_eq!(unpacked(packed.properties, packed.filter, &packed.bytes, agent.len()).as_deref(), Ok(agent));
        }
    }
}
