//! Compiled components are kept by content; what is damaged is compiled again, and never run.

use std::path::{Path, PathBuf};

use witgate_host::Host;

use crate::kit;

const TOML: &str = "[providers.stub]\nadapter = \"stub\"";

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cache-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn start(cache: &Path) -> Host {
    kit::builder(TOML).cache_dir(Some(cache.to_owned())).build().unwrap()
}

/// The entries: files of machine code.
fn entries(cache: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![cache.join("entries/modules")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_none() {
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test]
async fn a_second_start_compiles_nothing() {
    let cache = folder("second");
    // The normaliser and the stub.
    assert_eq!(start(&cache).cached(), Some((0, 2)));
    let host = start(&cache);
    assert_eq!(host.cached(), Some((2, 0)));
    assert_eq!(kit::ask(&host, "m", false).await.0, 404);
    assert_eq!(kit::ask(&host, "stub/m", false).await.0, 200);
}

#[tokio::test]
async fn a_damaged_entry_is_compiled_again_wherever_it_is_damaged() {
    let cache = folder("damaged");
    start(&cache);
    let entries = entries(&cache);
    assert_eq!(entries.len(), 2);
    let length = std::fs::metadata(&entries[0]).unwrap().len() as usize;
    for at in [0, 100, length / 3, length / 2, length - 1] {
        let mut bytes = std::fs::read(&entries[0]).unwrap();
        bytes[at] ^= 0x10;
        std::fs::write(&entries[0], &bytes).unwrap();
        let host = start(&cache);
        assert_eq!(host.cached(), Some((1, 1)), "damaged at {at}");
        assert_eq!(kit::ask(&host, "stub/m", false).await.0, 200);
        assert_eq!(start(&cache).cached(), Some((2, 0)), "after damage at {at}");
    }
    // Cut off, empty, and another's.
    let other = std::fs::read(&entries[1]).unwrap();
    let whole = std::fs::read(&entries[0]).unwrap();
    for bytes in [&whole[..length / 2], b"", &other] {
        std::fs::write(&entries[0], bytes).unwrap();
        assert_eq!(start(&cache).cached(), Some((1, 1)), "{} bytes", bytes.len());
    }
}

#[test]
fn an_entry_that_nobody_vouches_for_is_not_used() {
    let cache = folder("unvouched");
    start(&cache);
    std::fs::remove_file(cache.join("digests")).unwrap();
    assert_eq!(start(&cache).cached(), Some((0, 2)));
    std::fs::write(cache.join("digests"), "nonsense\n\u{0}  \n").unwrap();
    assert_eq!(start(&cache).cached(), Some((0, 2)));
    assert_eq!(start(&cache).cached(), Some((2, 0)));
}

#[test]
fn two_starts_at_once_do_not_disturb_each_other() {
    let cache = folder("at-once");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| start(&cache));
        }
    });
    start(&cache);
    assert_eq!(start(&cache).cached(), Some((2, 0)));
}

#[test]
fn what_was_not_used_for_long_is_deleted() {
    let cache = folder("old");
    start(&cache);
    let used = entries(&cache);
    let folder = used[0].parent().unwrap();
    // Sound entries of earlier versions: a hundred times the byte `x`, each with its digest.
    let mut digests = std::fs::read_to_string(cache.join("digests")).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(1_000_000);
    for at in 0..100 {
        let path = folder.join(format!("old{at}"));
        std::fs::write(&path, "x").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        let name = path.strip_prefix(cache.join("entries")).unwrap();
        digests += "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        digests += &format!("  {}\n", name.display());
    }
    std::fs::write(cache.join("digests"), digests).unwrap();
    assert_eq!(start(&cache).cached(), Some((2, 0)));
    let left = entries(&cache);
    assert_eq!(left.len(), 64);
    assert!(used.iter().all(|path| left.contains(path)), "{left:?}");
}

#[cfg(unix)]
#[test]
fn a_folder_that_others_may_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let cache = folder("open");
    std::fs::create_dir_all(&cache).unwrap();
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(start(&cache).cached(), None);
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
}

#[test]
fn without_a_folder_everything_is_compiled() {
    let host = kit::builder(TOML).cache_dir(None).build().unwrap();
    assert_eq!(host.cached(), None);
}
