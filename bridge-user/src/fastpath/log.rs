//! What the programs say of each frame, if they were loaded at log level trace: for who debugs them.

use std::{
    os::fd::AsFd as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapInfo, RingBuf},
    programs::SchedClassifier,
};
use aya_log::EbpfLogger;
use bridge_common::fastpath::program;
use log::{LevelFilter, Log};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{SysconfVar, sysconf},
};

use super::pins::take;
use crate::error::{Context as _, Result};

/// The map of aya-log-ebpf.
const MAP: &str = "AYA_LOGS";

/// How often it is looked whether printing is to end, in milliseconds.
const LOOK: u8 = 200;

/// What the programs say is printed, by a thread of its own, until this is dropped: they may say more than can be printed,
/// and what finds no room they drop. There is one reader.
pub(crate) struct FrameLog(Arc<AtomicBool>);

impl FrameLog {
    fn of(log: EbpfLogger<&'static dyn Log>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&ended);
        thread::spawn(move || print(log, &has_ended));
        Self(ended)
    }
}

impl Drop for FrameLog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn print(mut log: EbpfLogger<&'static dyn Log>, has_ended: &AtomicBool) {
    while !has_ended.load(Ordering::Relaxed) {
        // A signal that interrupts it, or nothing to read, only has it look sooner.
        let _ = poll(
            &mut [PollFd::new(log.as_fd(), PollFlags::POLLIN)],
            PollTimeout::from(LOOK),
        );
        log.flush();
    }
}

/// Whether frames are to be told of: whoever embeds this library and sets its log level to trace asks for it too.
pub(crate) fn is_wanted() -> bool {
    log::max_level() == LevelFilter::Trace
}

/// Bytes of a page.
pub(super) fn page_size() -> u32 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    page.and_then(|page| u32::try_from(page).ok()).unwrap_or(4096)
}

/// Has the programs say what is wanted; where that is nothing, their buffer is as small as one can be.
pub(super) fn set(loader: &mut EbpfLoader<'_>) {
    if is_wanted() {
        loader.override_global(aya_log::LEVEL, const { &(LevelFilter::Trace as u8) }, true);
    } else {
        loader.override_global(aya_log::LEVEL, &0_u8, true);
        loader.map_max_entries(MAP, page_size());
    }
}

/// Begins anew, after programs were tried out, and says that they are in use from now on.
pub(super) fn begin(object: &mut Ebpf) -> Result<()> {
    if !is_wanted() {
        return Ok(());
    }
    let mut said: RingBuf<_> = take(object, MAP)?;
    while said.next().is_some() {}
    log::warn!(
        "the programs tell of each frame now, which takes time: 'tapbridge monitor --log-level trace' prints it, and \
         'tapbridge upgrade' ends it"
    );
    Ok(())
}

/// Prints what the programs that are pinned here say; none if they say nothing.
pub(super) fn open(folder: &Path) -> Result<Option<FrameLog>> {
    let program =
        SchedClassifier::from_pin(folder.join(program::TCX)).at(program::TCX, "open the pinned program")?;
    let info = program.info().at(program::TCX, "read what is known of it")?;
    let maps = info.map_ids().at(program::TCX, "read its maps")?;
    let is_silent = maps
        .into_iter()
        .flatten()
        .filter_map(|id| MapInfo::from_id(id).ok())
        .all(|map| map.name_as_str() != Some(MAP) || map.max_entries() <= page_size());
    if is_silent {
        return Ok(None);
    }
    let log = EbpfLogger::init_from_id(info.id()).at(MAP, "open")?;
    Ok(Some(FrameLog::of(log)))
}
