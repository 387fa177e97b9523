//! Samples of what CPUs do, out of the kernel's buffers.

use std::{
    collections::HashMap,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::errno::Errno;
use perf_event::{Builder, SampleFlag, events::Software};

use super::fold::Owner;

/// Not a multiple of any timer's, so that what goes by timers is not always met at the same point. A sample takes up to 20 µs
/// where the machine is itself virtual, so more of them would cost more than one per cent.
pub const FREQUENCY_HZ: u32 = 499;
/// Of a CPU's buffer: with stacks of 60 functions it takes four seconds of samples.
const BUFFER: usize = 1 << 20;
/// How often the buffers are emptied.
const INTERVAL: Duration = Duration::from_millis(200);

/// The register of a system call's first argument among those that perf knows (`PERF_REG_X86_DI`).
#[cfg(target_arch = "x86_64")]
const FIRST_ARGUMENT: u64 = 1 << 5;
/// `PERF_REG_ARM64_X0`.
#[cfg(target_arch = "aarch64")]
const FIRST_ARGUMENT: u64 = 1 << 0;

/// Kinds of records, see `perf_event_open(2)`.
const RECORD_LOST: u32 = 2;
const RECORD_SAMPLE: u32 = 9;
/// Of a record's `misc`: where the CPU was, of which a guest's kernel and a guest's user space are two.
const CPU_MODE: u16 = 7;
const GUEST_KERNEL: u16 = 4;
const GUEST_USER: u16 = 5;
/// From here on a stack's entries are no addresses (`PERF_CONTEXT_MAX`).
const MARKERS: u64 = (-4095_i64).cast_unsigned();

/// What was sampled.
#[derive(Debug, Default)]
pub struct Samples {
    /// How often which stack was met, innermost address first.
    pub stacks: HashMap<(Owner, Vec<u64>), u64>,
    pub lost: u64,
}

/// The samples of one CPU.
pub struct Sampler(perf_event::Sampler);

impl Sampler {
    /// Begins.
    pub fn open(cpu: usize) -> Result<Self> {
        let mut builder = Builder::new(Software::CPU_CLOCK);
        builder.any_pid().one_cpu(cpu).include_kernel().exclude_user(true);
        builder.exclude_idle(true).exclude_callchain_user(true);
        builder.sample_period(1_000_000_000 / u64::from(FREQUENCY_HZ));
        builder.sample(SampleFlag::IP | SampleFlag::TID | SampleFlag::CALLCHAIN | SampleFlag::REGS_USER);
        builder.sample_regs_user(FIRST_ARGUMENT);
        let counter = builder.build().map_err(explained);
        let counter = counter.with_context(|| format!("perf_event_open(2) of CPU {cpu}"))?;
        let mut sampler = counter.sampled(BUFFER).context("mapping perf's buffer")?;
        sampler.enable().context("starting perf's clock")?;
        Ok(Self(sampler))
    }

    /// Takes what there is.
    fn drain(&mut self, vmms: &HashMap<u32, Vec<u64>>, samples: &mut Samples) -> Result<()> {
        while let Some(record) = self.0.next_record() {
            let bytes = record.to_contiguous();
            match record.ty() {
                // A virtual machine's own code is no more the host's kernel than user space is. `exclude_guest` does
                // nothing to a clock.
                RECORD_SAMPLE if matches!(record.misc() & CPU_MODE, GUEST_KERNEL | GUEST_USER) => {}
                RECORD_SAMPLE => {
                    let sample = Sample::parse(&bytes).context("a sample of perf that is cut off")?;
                    let key = (sample.owner(vmms), sample.stack);
                    *samples.stacks.entry(key).or_default() += 1;
                }
                // An identifier, and how many.
                RECORD_LOST => samples.lost += words(&bytes).nth(1).unwrap_or(0),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What to do where the kernel refuses.
fn explained(error: std::io::Error) -> anyhow::Error {
    let way_out = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) => {
            "it takes CAP_PERFMON, or 'sysctl kernel.perf_event_paranoid=-1'; in a container, a seccomp profile that allows it"
        }
        Some(Errno::ENOENT | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            "this kernel has no perf events (CONFIG_PERF_EVENTS)"
        }
        Some(Errno::EMFILE) => "this process has too many files open: raise 'ulimit -n'",
        _ => return anyhow::Error::new(error),
    };
    anyhow::Error::new(error).context(way_out)
}

/// Empties the buffers until nobody wants more. The VMMs are told from other processes, and which of their descriptors are
/// guests' cards.
pub fn collect(
    mut cpus: Vec<Sampler>,
    vmms: &HashMap<u32, Vec<u64>>,
    stopped: &Receiver<()>,
) -> Result<Samples> {
    let mut samples = Samples::default();
    loop {
        let goes_on = stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout);
        if !goes_on {
            for cpu in &mut cpus {
                cpu.0.disable().context("stopping perf's clock")?;
            }
        }
        for cpu in &mut cpus {
            cpu.drain(vmms, &mut samples)?;
        }
        if !goes_on {
            return Ok(samples);
        }
    }
}

/// One look at a CPU.
#[derive(Debug, PartialEq)]
struct Sample {
    process: u32,
    /// Of the system call that the CPU is in; of no meaning outside of one, and none in a thread of the kernel's.
    first_argument: Option<u64>,
    /// Addresses, the innermost first.
    stack: Vec<u64>,
}

impl Sample {
    /// Of what [`Sampler::open`] asks for, in the kernel's order; `None` if something is missing.
    fn parse(record: &[u8]) -> Option<Self> {
        let mut words = words(record);
        let address = words.next()?;
        let [process @ .., _, _, _, _] = words.next()?.to_ne_bytes();
        let depth = words.next()?;
        let stack = (0..depth).map(|_| words.next()).collect::<Option<Vec<_>>>()?;
        let mut stack: Vec<_> = stack.into_iter().filter(|&address| address < MARKERS).collect();
        if stack.is_empty() {
            stack.push(address);
        }
        // Whether there are registers, and the one.
        let first_argument = if words.next()? == 0 {
            None
        } else {
            Some(words.next()?)
        };
        Some(Self {
            process: u32::from_ne_bytes(process),
            first_argument,
            stack,
        })
    }

    fn owner(&self, vmms: &HashMap<u32, Vec<u64>>) -> Owner {
        match vmms.get(&self.process) {
            None => Owner::Other,
            Some(cards)
                if self
                    .first_argument
                    .is_some_and(|argument| cards.contains(&argument)) =>
            {
                Owner::GuestCard
            }
            Some(_) => Owner::Vmm,
        }
    }
}

fn words(record: &[u8]) -> impl Iterator<Item = u64> {
    record.as_chunks().0.iter().map(|&word| u64::from_ne_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: u64 = (-128_i64).cast_unsigned();

    fn record(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn ids(process: u32, thread: u32) -> u64 {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&process.to_ne_bytes());
        bytes[4..].copy_from_slice(&thread.to_ne_bytes());
        u64::from_ne_bytes(bytes)
    }

    #[test]
    fn a_sample_has_a_process_a_stack_and_the_calls_first_argument() {
        let sample = Sample::parse(&record(&[0x11, ids(42, 43), 3, KERNEL, 0x11, 0x22, 2, 7])).unwrap();
        let expected = Sample {
            process: 42,
            first_argument: Some(7),
            stack: vec![0x11, 0x22],
        };
        assert_eq!(sample, expected);
        let vmms = HashMap::from([(42, vec![7])]);
        assert_eq!(sample.owner(&vmms), Owner::GuestCard);
        assert_eq!(sample.owner(&HashMap::from([(42, vec![8])])), Owner::Vmm);
        assert_eq!(sample.owner(&HashMap::from([(43, vec![7])])), Owner::Other);
    }

    #[test]
    fn a_thread_of_the_kernel_has_no_registers_and_a_stack_that_was_not_found_is_the_address() {
        let sample = Sample::parse(&record(&[0x11, ids(2, 2), 1, KERNEL, 0])).unwrap();
        assert_eq!((sample.first_argument, &*sample.stack), (None, &[0x11][..]));
    }

    #[test]
    fn what_the_kernel_refuses_for_another_reason_is_told_as_it_is() {
        let told = |errno: Errno| format!("{:#}", explained(std::io::Error::from(errno)));
        assert!(told(Errno::EACCES).contains("perf_event_paranoid"));
        assert!(told(Errno::ENOSYS).contains("CONFIG_PERF_EVENTS"));
        assert!(!told(Errno::EBUSY).contains("CONFIG_PERF_EVENTS"));
    }

    #[test]
    fn a_sample_that_is_cut_off_is_none() {
        let whole = record(&[0x11, ids(1, 1), 2, 0x11, 0x22, 2, 7]);
        assert!(Sample::parse(&whole).is_some());
        for length in 0..7 {
            assert_eq!(Sample::parse(&whole[..8 * length]), None, "{length}");
        }
    }
}
