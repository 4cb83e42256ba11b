//! What is measured, and what the report shows of it: two tables of data.
//!
//! Owns the choice of arguments, repetitions and aims. Must not know how a measurement is run or a cell is printed.

use crate::anchor::Who;

/// A word of an anchor's arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    /// As it stands.
    Is(&'static str),
    /// A count: in a full run, in a quick one.
    Count(u64, u64),
}

/// How a measurement is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// The anchor's last line is the result.
    Once,
    /// As `Once`, the anchor and the sshd bound to one CPU.
    Pinned,
    /// As `Once`, through a relay with this round trip in milliseconds.
    Delayed(u64),
    /// As `Once`, through a relay that passes so many bytes a second in each direction.
    Throttled(u64),
    /// As `Once`, with an ssh that counts bytes: up to where the anchor was connected, and from there until it had called.
    Counted,
    /// Twice under strace, with the last count and six times that; the difference is system calls for each call.
    Traced,
    /// The anchor holds; memory and CPU time are read from outside.
    Held,
    /// The anchor holds and is watched while nothing happens.
    Idle,
    /// The anchor holds and is killed.
    Killed,
}

/// One measurement: every anchor in turn, repeated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measurement {
    /// With `variant`, its name in result files.
    pub(crate) bench: &'static str,
    pub(crate) variant: &'static str,
    pub(crate) how: How,
    pub(crate) words: &'static [Word],
    pub(crate) who: &'static [Who],
    pub(crate) repetitions: u32,
    /// Seconds for one run of one anchor.
    pub(crate) deadline: u64,
}

/// Which of our programs a measurement runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// This one.
    Driver,
    /// The one with remote functions.
    Calls,
    /// The same, static and [`IMAGE`] bytes long: it is sent to where they run.
    Image,
}

impl Measurement {
    /// The program of offshoot's that it runs.
    pub(crate) fn program(&self) -> Program {
        match self.bench {
            "call" | "call_syscalls" | "call_pipeline" => Program::Calls,
            "first" | "economy" => Program::Image,
            _ => Program::Driver,
        }
    }

    /// Whether it needs an sshd.
    pub(crate) fn over_ssh(&self) -> bool {
        self.variant.starts_with("ssh")
    }
}

/// What a number is, for printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Kept in seconds, shown in s or ms.
    Seconds,
    Micros,
    PerSecond,
    Rate,
    Bytes,
    Kib,
    Number,
}

/// What offshoot is to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    AtMost(f64),
    AtLeast(f64),
    /// At most this many times the other's.
    Times(f64, Who),
    /// At least this share of the other's.
    Share(f64, Who),
    /// At most the other's and this.
    Plus(f64, Who),
}

/// One line of the report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) bench: &'static str,
    pub(crate) variant: &'static str,
    pub(crate) metric: &'static str,
    pub(crate) unit: Unit,
    pub(crate) aim: Aim,
}

use Aim::{AtLeast, AtMost, Plus, Share, Times};
use How::{Counted, Delayed, Held, Idle, Killed, Once, Pinned, Throttled, Traced};
use Who::{Execnet, Limit, Mitogen, Offshoot, Openssh};
use Word::{Count, Is};

const EVERYONE: &[Who] = &[Limit, Openssh, Execnet, Mitogen, Offshoot];
const TREES: &[Who] = &[Limit, Execnet, Mitogen, Offshoot];
const OWN: &[Who] = &[Limit, Offshoot];
const CALLERS: &[Who] = &[Limit, Mitogen, Offshoot];
const FORWARDERS: &[Who] = &[Mitogen, Offshoot];
const SENDERS: &[Who] = &[Openssh, Mitogen, Offshoot];

const GIB: u64 = 1 << 30;
const QUARTER: u64 = 1 << 28;
const QUICK_BULK: u64 = 1 << 25;

/// Bytes of the image that travels, and of the modules that Mitogen sends in its stead.
pub(crate) const IMAGE: u64 = 7 << 18;
/// 100 Mbit/s.
const LINE: u64 = 12_500_000;

const fn m(
    bench: &'static str,
    variant: &'static str,
    how: How,
    words: &'static [Word],
    who: &'static [Who],
    repetitions: u32,
    deadline: u64,
) -> Measurement {
    Measurement { bench, variant, how, words, who, repetitions, deadline }
}

/// All measurements, in the order run.
pub(crate) const MEASUREMENTS: &[Measurement] = &[
    m("connect", "local", Once, &[Is("connect"), Is("local")], TREES, 15, 30),
    m("connect", "sudo", Once, &[Is("connect"), Is("sudo")], TREES, 7, 30),
    m("connect", "ssh", Once, &[Is("connect"), Is("ssh")], EVERYONE, 9, 60),
    m("connect", "ssh3", Once, &[Is("connect"), Is("ssh3")], EVERYONE, 5, 90),
    m("rtt", "ssh-100ms", Delayed(100), &[Is("connect"), Is("ssh")], EVERYONE, 5, 90),
    m("rtt", "ssh-100ms-next", Delayed(100), &[Is("connect_warm"), Is("ssh"), Count(2, 1)], TREES, 3, 120),
    m("bytes", "ssh", Counted, &[Is("connect"), Is("ssh")], &[Execnet, Mitogen, Offshoot], 2, 60),
    m("latency", "local-0", Pinned, &[Is("latency"), Is("local"), Is("0"), Count(5000, 100)], TREES, 9, 60),
    m("latency", "local-65536", Pinned, &[Is("latency"), Is("local"), Is("65536"), Count(1000, 50)], TREES, 9, 60),
    m("latency", "local3-0", Pinned, &[Is("latency"), Is("local3"), Is("0"), Count(2000, 50)], TREES, 9, 60),
    m("latency", "local32-0", Pinned, &[Is("latency"), Is("local32"), Is("0"), Count(500, 20)], OWN, 5, 60),
    m("latency", "ssh-0", Pinned, &[Is("latency"), Is("ssh"), Is("0"), Count(2000, 50)], EVERYONE, 5, 90),
    m("latency", "ssh-65536", Pinned, &[Is("latency"), Is("ssh"), Is("65536"), Count(300, 20)], EVERYONE, 5, 90),
    m("syscalls", "local-0", Traced, &[Is("latency"), Is("local"), Is("0"), Count(200, 40)], TREES, 2, 90),
    m("pipeline", "local", Pinned, &[Is("pipeline"), Is("local"), Count(20_000, 500)], TREES, 7, 60),
    m("call", "local-0", Pinned, &[Is("call"), Is("local"), Count(5000, 100)], CALLERS, 9, 60),
    m("call_syscalls", "local-0", Traced, &[Is("call"), Is("local"), Count(200, 40)], CALLERS, 2, 90),
    m("call_pipeline", "local", Pinned, &[Is("call_pipeline"), Is("local"), Count(20_000, 500)], CALLERS, 5, 60),
    m("first", "local", Once, &[Is("first"), Is("local"), Count(IMAGE, IMAGE)], FORWARDERS, 5, 60),
    m("first", "sudo", Once, &[Is("first"), Is("sudo"), Count(IMAGE, IMAGE)], FORWARDERS, 5, 60),
    m("first", "ssh", Once, &[Is("first"), Is("ssh"), Count(IMAGE, IMAGE)], SENDERS, 5, 60),
    m("first", "ssh-line", Throttled(LINE), &[Is("first"), Is("ssh"), Count(IMAGE, IMAGE)], SENDERS, 5, 90),
    m("first", "ssh3", Once, &[Is("first"), Is("ssh3"), Count(IMAGE, IMAGE)], FORWARDERS, 3, 90),
    m(
        "economy",
        "ssh-50",
        Counted,
        &[Is("economy"), Is("ssh"), Count(50, 4), Is("20"), Count(IMAGE, IMAGE)],
        FORWARDERS,
        2,
        180,
    ),
    m("bulk", "local-up", Pinned, &[Is("bulk"), Is("local"), Is("up"), Count(GIB, QUICK_BULK)], TREES, 5, 120),
    m("bulk", "local-down", Pinned, &[Is("bulk"), Is("local"), Is("down"), Count(GIB, QUICK_BULK)], TREES, 5, 120),
    m("bulk", "local-up-free", Once, &[Is("bulk"), Is("local"), Is("up"), Count(GIB, QUICK_BULK)], TREES, 5, 120),
    m("bulk", "local-down-free", Once, &[Is("bulk"), Is("local"), Is("down"), Count(GIB, QUICK_BULK)], TREES, 5, 120),
    m("bulk", "local3-up", Pinned, &[Is("bulk"), Is("local3"), Is("up"), Count(QUARTER, QUICK_BULK)], TREES, 5, 120),
    m(
        "bulk",
        "local3-down",
        Pinned,
        &[Is("bulk"), Is("local3"), Is("down"), Count(QUARTER, QUICK_BULK)],
        TREES,
        5,
        120,
    ),
    m("bulk", "ssh-up", Once, &[Is("bulk"), Is("ssh"), Is("up"), Count(QUARTER, QUICK_BULK)], EVERYONE, 5, 120),
    m("bulk", "ssh-down", Once, &[Is("bulk"), Is("ssh"), Is("down"), Count(QUARTER, QUICK_BULK)], EVERYONE, 5, 120),
    m("beside", "local", Once, &[Is("beside"), Is("local"), Count(GIB, QUICK_BULK)], &[Offshoot], 5, 120),
    m("beside", "ssh", Once, &[Is("beside"), Is("ssh"), Count(QUARTER, QUICK_BULK)], &[Offshoot], 5, 120),
    m("fanout", "local-200", Held, &[Is("fanout"), Is("local"), Count(200, 10)], TREES, 5, 120),
    m("fanout", "ssh-50", Held, &[Is("fanout"), Is("ssh"), Count(50, 3)], EVERYONE, 3, 120),
    m("scale", "local-2000", Once, &[Is("scale"), Is("local"), Count(2000, 40)], OWN, 3, 180),
    m("idle", "local", Idle, &[Is("idle"), Is("local")], TREES, 1, 60),
    m("idle", "ssh", Idle, &[Is("idle"), Is("ssh")], EVERYONE, 1, 60),
    m("kill", "local-tree", Killed, &[Is("tree"), Is("local"), Is("2"), Is("3"), Is("2")], TREES, 5, 60),
    m("kill", "ssh-tree", Killed, &[Is("tree"), Is("ssh"), Is("2"), Is("3"), Is("2")], &[Mitogen, Offshoot], 2, 120),
];

const fn r(
    title: &'static str,
    bench: &'static str,
    variant: &'static str,
    metric: &'static str,
    unit: Unit,
    aim: Aim,
) -> Row {
    Row { title, bench, variant, metric, unit, aim }
}

/// All lines of the report, in its order. Names of fields are those of the contract, or added by the suite.
pub(crate) const ROWS: &[Row] = &[
    r("local connect + first built-in call + shutdown", "connect", "local", "total_s", Unit::Seconds, AtMost(0.002)),
    r("the same with sudo, no password", "connect", "sudo", "total_s", Unit::Seconds, AtMost(0.010)),
    r("the same over ssh", "connect", "ssh", "total_s", Unit::Seconds, Times(1.08, Limit)),
    r("three ssh hops", "connect", "ssh3", "total_s", Unit::Seconds, Times(1.08, Limit)),
    r(
        "ssh connect + first built-in call, 100 ms round trip",
        "rtt",
        "ssh-100ms",
        "called_s",
        Unit::Seconds,
        Plus(0.1, Limit),
    ),
    r(
        "a further context over the same path, triple known",
        "rtt",
        "ssh-100ms-next",
        "next_p50_s",
        Unit::Seconds,
        Times(1.02, Limit),
    ),
    r("bytes up until connected", "bytes", "ssh", "up_bytes", Unit::Bytes, AtMost(102_400.0)),
    r("length of the ssh command", "bytes", "ssh", "command_bytes", Unit::Bytes, AtMost(200.0)),
    r(
        "no-op call answered by the agent, local, one CPU",
        "latency",
        "local-0",
        "p50_us",
        Unit::Micros,
        Times(1.3, Limit),
    ),
    r("its switches of threads", "latency", "local-0", "switches_per_call", Unit::Number, AtMost(2.1)),
    r("its system calls", "syscalls", "local-0", "syscalls_per_call", Unit::Number, AtMost(9.0)),
    r("64 KiB echo, local, one CPU", "latency", "local-65536", "p50_us", Unit::Micros, Times(3.0, Limit)),
    r("no-op call, three local hops, one CPU", "latency", "local3-0", "p50_us", Unit::Micros, Times(1.7, Limit)),
    r("no-op call, 32 local hops, one CPU", "latency", "local32-0", "p50_us", Unit::Micros, AtMost(1000.0)),
    r("no-op call over ssh, one CPU", "latency", "ssh-0", "p50_us", Unit::Micros, Times(1.5, Limit)),
    r("64 KiB echo over ssh, one CPU", "latency", "ssh-65536", "p50_us", Unit::Micros, Times(1.3, Limit)),
    r("pipelined calls per second, local, one CPU", "pipeline", "local", "calls_per_s", Unit::PerSecond, AtLeast(1e6)),
    r(
        "no-op typed call, through agent and worker, local, one CPU",
        "call",
        "local-0",
        "p50_us",
        Unit::Micros,
        Times(2.5, Limit),
    ),
    r("its switches of threads", "call", "local-0", "switches_per_call", Unit::Number, AtMost(5.1)),
    r("its system calls", "call_syscalls", "local-0", "syscalls_per_call", Unit::Number, AtMost(24.0)),
    r(
        "pipelined typed calls per second, local, one CPU",
        "call_pipeline",
        "local",
        "calls_per_s",
        Unit::PerSecond,
        Share(10.0, Mitogen),
    ),
    r("first typed call, image of 1.75 MiB, local", "first", "local", "first_s", Unit::Seconds, AtMost(0.025)),
    r("the same as root, behind sudo", "first", "sudo", "first_s", Unit::Seconds, AtMost(0.025)),
    r("the same over ssh", "first", "ssh", "first_s", Unit::Seconds, Times(0.25, Mitogen)),
    r("what is sent for it", "first", "ssh", "sent_bytes", Unit::Bytes, AtMost(1.01 * IMAGE as f64)),
    r("its rate over ssh at 11.9 MiB/s", "first", "ssh-line", "MiB_s", Unit::Rate, Share(0.9, Openssh)),
    r("the same behind three ssh hops", "first", "ssh3", "first_s", Unit::Seconds, Times(0.25, Mitogen)),
    r(
        "first calls of 50 contexts behind one host, 20 threads: bytes sent to it",
        "economy",
        "ssh-50",
        "calls_up_bytes",
        Unit::Bytes,
        AtMost(1.1 * IMAGE as f64),
    ),
    r("their round trips to it", "economy", "ssh-50", "round_trips", Unit::Number, AtMost(100.0)),
    r("their time", "economy", "ssh-50", "calls_s", Unit::Seconds, Times(0.25, Mitogen)),
    r("bulk up, local, 1 GiB, one CPU", "bulk", "local-up", "MiB_s", Unit::Rate, Share(0.9, Limit)),
    r("bulk down, local, 1 GiB, one CPU", "bulk", "local-down", "MiB_s", Unit::Rate, Share(0.9, Limit)),
    r("bulk up, local, 1 GiB, all CPUs", "bulk", "local-up-free", "MiB_s", Unit::Rate, Share(0.9, Limit)),
    r("bulk down, local, 1 GiB, all CPUs", "bulk", "local-down-free", "MiB_s", Unit::Rate, Share(0.9, Limit)),
    r("largest process of it", "bulk", "local-down-free", "largest_kib", Unit::Kib, AtMost(32_768.0)),
    r("bulk up, three local hops, one CPU", "bulk", "local3-up", "MiB_s", Unit::Rate, Share(0.8, Limit)),
    r("bulk down, three local hops, one CPU", "bulk", "local3-down", "MiB_s", Unit::Rate, Share(0.8, Limit)),
    r("bulk up over ssh, 256 MiB", "bulk", "ssh-up", "MiB_s", Unit::Rate, Share(0.95, Openssh)),
    r("bulk down over ssh, 256 MiB", "bulk", "ssh-down", "MiB_s", Unit::Rate, Share(0.95, Openssh)),
    r("calls beside a bulk stream, local, p99", "beside", "local", "p99_us", Unit::Micros, AtMost(300.0)),
    r("calls beside a bulk stream, loopback ssh, p99", "beside", "ssh", "p99_us", Unit::Micros, AtMost(2000.0)),
    r("200 local contexts, connect and call", "fanout", "local-200", "total_s", Unit::Seconds, AtMost(0.3)),
    r("memory per context, proportional", "fanout", "local-200", "context_pss_kib", Unit::Kib, AtMost(409.6)),
    r("CPU to start 200 contexts", "fanout", "local-200", "cpu_s", Unit::Seconds, AtMost(0.35)),
    r("ssh fan-out, 50", "fanout", "ssh-50", "total_s", Unit::Seconds, Times(1.05, Openssh)),
    r(
        "2,000 contexts: price of a late one to an early one",
        "scale",
        "local-2000",
        "late_over_early",
        Unit::Number,
        Times(1.3, Limit),
    ),
    r(
        "a call with all of them open to one alone",
        "scale",
        "local-2000",
        "among_over_alone",
        Unit::Number,
        Times(1.3, Limit),
    ),
    r("idle local context, wake-ups per second", "idle", "local", "wakeups_per_s", Unit::Number, AtMost(1.0)),
    r("idle ssh context, wake-ups per second", "idle", "ssh", "wakeups_per_s", Unit::Number, AtMost(3.0)),
    r(
        "master killed, 20 contexts three deep, all gone",
        "kill",
        "local-tree",
        "all_gone_s",
        Unit::Seconds,
        AtMost(0.050),
    ),
    r("the same over ssh", "kill", "ssh-tree", "all_gone_s", Unit::Seconds, AtMost(6.0)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_measurement_and_its_reference_takes_part() {
        let find = |bench, variant| MEASUREMENTS.iter().find(|m| (m.bench, m.variant) == (bench, variant));
        for row in ROWS {
            let own = find(row.bench, row.variant).unwrap_or_else(|| panic!("no measurement for {:?}", row.title));
            assert!(own.who.contains(&Offshoot), "{:?} without offshoot", row.title);
            if let Times(_, who) | Share(_, who) | Plus(_, who) = row.aim {
                assert!(own.who.contains(&who), "{:?} is compared with {who:?}, who takes no part", row.title);
            }
        }
    }

    #[test]
    fn a_traced_measurement_ends_in_a_count() {
        for m in MEASUREMENTS.iter().filter(|m| m.how == Traced) {
            assert!(matches!(m.words.last(), Some(Count(..))), "{} {}", m.bench, m.variant);
        }
    }
}
