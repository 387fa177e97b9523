//! `tapbridge-lab check`: whether a datapath carries what guests send, unharmed.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{
    cost::{CostProbe, Sampling},
    host::{
        cpus::Placement,
        interrupt,
        job::{self, State},
        scratch,
        wait::{self, OnSignal},
    },
    results::Run,
    testbed::{
        self, Progress, Testbed,
        guest::{Duty, Guest},
        setup::{Choice, Setup},
        stale,
    },
};

/// For a ping, or a file of half a MB, on a busy machine whose guests run without KVM.
const LIMIT: Duration = Duration::from_mins(1);
/// The file's length, in blocks of 64 KiB.
const BLOCKS: &str = "8";
const PORT: &str = "7000";

/// Check that pings and files get from guest to guest, over each of the datapaths in turn
///
/// Files are sent both ways by TCP over IPv4 and IPv6 and compared by checksum. The guests need busybox: virtual
/// machines have it, namespaces use that of --vm, or the host's.
#[derive(Debug, Args)]
pub struct CheckArguments {
    #[command(flatten)]
    setup: Setup,
}

impl CheckArguments {
    pub fn run(&self) -> Result<()> {
        interrupt::catch()?;
        let setup = &self.setup;
        setup.inspect()?;
        stale::clean();
        let backend = setup.backend(Placement::default(), false)?;
        // Guests that are namespaces share the host's file system.
        let scratch = scratch::folder("check")?;
        for choice in Choice::all(setup) {
            let progress = Progress::new(choice.name());
            let host = testbed::host()?;
            let testbed = Testbed::connect(&host, &*backend, setup, choice, &[Duty::Programs; 2], &progress)?;
            let check = Check {
                busybox: backend.busybox(),
                folder: scratch.path().display().to_string(),
                name: choice.name(),
            };
            let checked = || {
                let probe = CostProbe::open(&testbed, setup.tapbridge.as_deref(), Sampling::Off)?;
                check.all(&*testbed.guests[0], &*testbed.guests[1])?;
                check.costs(&testbed, &probe.close(())?, setup.vhost)
            };
            checked()
                .inspect_err(|error| testbed.explain(error))
                .with_context(|| choice.name())?;
            progress.step("cleaning up");
            testbed.end()?;
        }
        Ok(())
    }
}

struct Check {
    busybox: String,
    folder: String,
    /// The datapath's.
    name: String,
}

impl Check {
    fn all(&self, first: &dyn Guest, second: &dyn Guest) -> Result<()> {
        for (from, to) in [(first, second), (second, first)] {
            let addresses: [IpAddr; 2] = [to.id().ipv4().into(), to.id().ipv6().into()];
            for address in addresses {
                self.ping(from, address)?;
                self.send_file(from, to, address)?;
            }
        }
        Ok(())
    }

    /// What guests, VMMs, taps and tapbridge have counted must agree. Whoever sits nearer to the middle was asked first and
    /// last, so that a frame between two looks makes its count the greater one.
    fn costs(&self, testbed: &Testbed, counts: &Run<()>, vhost: bool) -> Result<()> {
        let client = (&counts.client, testbed.guests[0].id().tap());
        let server = (&counts.server, testbed.guests[1].id().tap());
        for ((from, port), (to, other)) in [(&client, &server), (&server, &client)] {
            let (sent, received) = (from.card.tx_frames, to.card.rx_frames);
            self.agree(&format!("{} sent {sent} frames", from.guest), sent > 0)?;
            // A kernel that copies the frames itself makes no system calls for them.
            if let Some(calls) = from.syscalls.as_ref().filter(|_| !vhost) {
                let calls = calls.get("writev").copied().unwrap_or(0);
                self.agree(&format!("its VMM called writev {calls} times"), calls >= sent)?;
            }
            if let Some(stats) = &counts.stats {
                let (rx, tx) = (stats.received(port)?, stats.sent(other)?);
                self.agree(&format!("tapbridge received {rx} from it"), rx >= sent)?;
                self.agree(&format!("and {tx} were sent to {}", to.guest), tx >= received)?;
            }
            if let Some(calls) = to.syscalls.as_ref().filter(|_| !vhost) {
                let calls = calls.get("read").copied().unwrap_or(0);
                self.agree(&format!("whose VMM called read {calls} times"), calls >= received)?;
            }
            self.agree(&format!("{} received {received} frames", to.guest), received > 0)?;
        }
        Ok(())
    }

    fn agree(&self, what: &str, agrees: bool) -> Result<()> {
        ensure!(agrees, "the counts do not agree: {what}");
        println!("{}: {what}: ok", self.name);
        Ok(())
    }

    fn ping(&self, from: &dyn Guest, to: IpAddr) -> Result<()> {
        let to = to.to_string();
        self.busybox(from, &["ping", "-c", "3", "-i", "0.2", "-W", "2", &to])?;
        println!("{}: ping from {} to {to}: ok", self.name, from.id().name());
        Ok(())
    }

    fn send_file(&self, from: &dyn Guest, to: &dyn Guest, address: IpAddr) -> Result<()> {
        let (sent, received) = (
            format!("{}/sent", self.folder),
            format!("{}/received", self.folder),
        );
        for guest in [from, to] {
            self.busybox(guest, &["mkdir", "-p", &self.folder])?;
        }
        let source = format!("of={sent}");
        self.busybox(
            from,
            &[
                "dd",
                "if=/dev/urandom",
                &source,
                "bs=64k",
                &format!("count={BLOCKS}"),
            ],
        )?;

        let busybox = &self.busybox;
        let store = format!("{busybox} cat >{received}");
        // As the server's child, so that the end of its input does not end the connection's other direction.
        let mut server = to.start(&[busybox, "nc", "-l", "-p", PORT, "-e", busybox, "sh", "-c", &store])?;
        let client = format!("{busybox} nc {address} {PORT} <{sent}");
        wait::until("the connection for a file", LIMIT, OnSignal::Stop, || {
            let mut client = from.start(&[busybox, "sh", "-c", &client])?;
            let end = wait::until("the file to be sent", LIMIT, OnSignal::Stop, || {
                Ok(Some(client.state()?).filter(|state| *state != State::Running))
            })?;
            match (end, server.state()?) {
                (State::Succeeded, _) => Ok(Some(())),
                (State::Failed(how), State::Succeeded | State::Failed(_)) => {
                    bail!("sending a file: {how}, {}", client.stderr())
                }
                // The server may not listen yet.
                _ => Ok(None),
            }
        })?;
        job::finish(&mut *server, LIMIT, OnSignal::Stop)?;

        let (sent, received) = (self.checksum(from, &sent)?, self.checksum(to, &received)?);
        ensure!(
            sent == received,
            "the file from {} to {address} arrived with the checksum {received} instead of {sent}",
            from.id().name()
        );
        println!(
            "{}: file from {} to {address}, SHA-256 {}…: ok",
            self.name,
            from.id().name(),
            &sent[..16]
        );
        Ok(())
    }

    fn checksum(&self, guest: &dyn Guest, path: &str) -> Result<String> {
        let output = self.busybox(guest, &["sha256sum", path])?;
        let sum = output.split_whitespace().next().unwrap_or_default();
        ensure!(sum.len() == 64, "sha256sum printed '{output}'");
        Ok(sum.into())
    }

    fn busybox(&self, guest: &dyn Guest, words: &[&str]) -> Result<String> {
        let mut job = guest.start(&[&[&*self.busybox], words].concat())?;
        job::finish(&mut *job, LIMIT, OnSignal::Stop)
    }
}
