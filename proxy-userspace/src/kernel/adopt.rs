use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::KernelError;
use super::raw::{link, map};
use super::specs::{Pinned, Resize, Spec};

/// Of a map that is being made to replace a smaller one. No map of ours has a name like this.
const SUFFIX: &str = "-new";

/// Checks every map that is pinned in `directory` (made if need be) and replaces those that are smaller than `specs`
/// asks for by larger ones with the same elements. Says for how many elements each map is or has to be made.
///
/// Programs that an earlier agent left on devices keep reading the smaller map, which nobody writes any more, until
/// they are replaced.
///
/// # Errors
/// [`KernelError::ForeignMap`] for the first pin that is not a map of the expected shape; nothing is changed then.
pub(super) fn adopt(directory: &Path, specs: Vec<Spec>) -> Result<Vec<Spec>, KernelError> {
    std::fs::create_dir_all(directory).map_err(KernelError::path("making", directory))?;
    let found: Vec<_> =
        specs.into_iter().map(|spec| Ok((spec.find(directory)?, spec))).collect::<Result<_, KernelError>>()?;
    found
        .into_iter()
        .map(|(pinned, spec)| match pinned {
            Some(pinned) if spec.resize == Resize::Copy && pinned.max_entries < spec.max_entries => {
                grow(directory, &spec, &pinned)?;
                Ok(spec)
            }
            Some(pinned) => Ok(Spec { max_entries: pinned.max_entries, ..spec }),
            None => Ok(spec),
        })
        .collect()
}

fn grow(directory: &Path, spec: &Spec, old: &Pinned) -> Result<(), KernelError> {
    let failed = |operation| move |cause: io::Error| KernelError::Map { name: spec.name, operation, cause };
    let new = map::create(&mut spec.shape_to_create()).map_err(failed("making a larger one"))?;
    // SAFETY: `find` has checked that the old map has the kind and sizes of the spec, and the new one was made by it;
    // maps that are copied are hash maps and arrays (`Spec::all`), not per-CPU ones.
    unsafe { map::copy(old.map.fd().as_fd(), new.as_fd(), spec.key_size as usize, spec.value_size as usize) }
        .map_err(failed("copying to a larger one"))?;
    let (path, temporary) = (directory.join(spec.name), directory.join(format!("{}{SUFFIX}", spec.name)));
    match std::fs::remove_file(&temporary) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            return Err(KernelError::path("removing", &temporary)(cause));
        }
        _ => {}
    }
    link::pin(new.as_fd(), &temporary).map_err(KernelError::path("pinning a map at", &temporary))?;
    std::fs::rename(&temporary, &path).map_err(KernelError::path("replacing pin", &path))?;
    tracing::info!(map = spec.name, from = old.max_entries, to = spec.max_entries, "enlarged a map");
    Ok(())
}
