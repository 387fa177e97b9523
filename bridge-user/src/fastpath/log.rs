//! What the programs say of each frame, if they were loaded at log level trace: for who debugs them.

use std::path::Path;

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapInfo, RingBuf},
    programs::SchedClassifier,
};
use aya_log::EbpfLogger;
use bridge_common::fastpath::program;
use log::{LevelFilter, Log};
use nix::unistd::{SysconfVar, sysconf};

use super::pins::take;
use crate::error::{Context as _, Result};

/// The map of aya-log-ebpf.
const MAP: &str = "AYA_LOGS";

/// What the programs say, for one reader.
pub(crate) type FrameLog = EbpfLogger<&'static dyn Log>;

/// Whether frames are to be told of.
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

/// Opens what the programs that are pinned here say; none if they say nothing.
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
    FrameLog::init_from_id(info.id()).map(Some).at(MAP, "open")
}
