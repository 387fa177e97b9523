//! What is pinned in a folder: maps, and links of programs to devices.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError},
};
use bridge_common::{Hook, fastpath::map};

use crate::{
    error::{Context as _, Result},
    kernel::link,
};

/// The links pinned in a folder that are attached to a device: XDP's first, since tcx takes what it passes.
pub(super) fn links(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).at(folder.display(), "list")?;
    let mut links: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| link::device_of(path).is_some())
        .collect();
    links.sort_by_key(|path| !path.to_string_lossy().ends_with(Hook::Xdp.name()));
    Ok(links)
}

/// Detaches and unpins all that is in a folder.
pub(super) fn remove(folder: &Path) -> Result<()> {
    // First, since without it nothing there is used.
    match fs::remove_file(folder.join(map::SETTINGS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.at(folder.display(), "unpin the settings")?,
    }
    for path in links(folder)? {
        // Removing the pin would detach too, but some time after this call.
        link::detach(&path).at(path.display(), "detach the program")?;
    }
    fs::remove_dir_all(folder).at(folder.display(), "remove")
}

/// Opens the map of this name.
pub(super) fn pinned<T: TryFrom<Map, Error = MapError>>(folder: &Path, name: &str) -> Result<T> {
    let data = pinned_data(folder, name)?;
    let map = Map::from_map_data(data).and_then(T::try_from);
    map.at(folder.join(name).display(), "open the pinned map")
}

/// Opens the map of this name, whatever it holds.
pub(super) fn pinned_data(folder: &Path, name: &str) -> Result<MapData> {
    let path = folder.join(name);
    MapData::from_pin(&path).at(path.display(), "open the pinned map")
}

/// A removal of what may have been gone before.
pub(super) fn gone(removal: Result<(), MapError>) -> Result<(), MapError> {
    match removal {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        removal => removal,
    }
}

/// The map of this name, of an object that is pinned nowhere.
pub(super) fn take<T: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &str) -> Result<T> {
    let map = object.take_map(name);
    T::try_from(map.expect("the object has all maps that it is built with")).at(name, "open")
}
