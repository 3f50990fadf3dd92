use std::os::unix::fs::PermissionsExt as _;

use super::*;

const MIB: u64 = 1 << 20;

fn store(folder: &Path, max_bytes: u64) -> Store {
    Store::open(folder, max_bytes).unwrap()
}

/// An incident with a recording of this size.
fn write(store: &Store, name: &str, bytes: u64) -> Result<PathBuf, StoreError> {
    let mut draft = store.begin(name)?;
    draft.file("recording.jsonl.zst", |out| {
        let piece = vec![b'x'; 64 << 10];
        (0..bytes / (64 << 10)).try_for_each(|_| out.write_all(&piece))
    })?;
    draft.file(MARK, |out| write!(out, "{{\"schema\":\"{MARK_SCHEMA}1\"}}"))?;
    draft.finish()
}

fn name_of(second: u32) -> String {
    format!("incident-20261125T0523{second:02}Z-default-vm1")
}

fn listed(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_folder_shows_once_it_is_whole() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("new/incidents");
    let store = store(&folder, 10 * MIB);
    let mut draft = store.begin(&name_of(1)).unwrap();
    draft.file("report.txt", |out| out.write_all(b"so far")).unwrap();
    assert_eq!(listed(&folder), [name::partial(&name_of(1))]);
    let whole = draft.finish().unwrap();
    assert_eq!(listed(&folder), [name_of(1)]);
    assert_eq!(fs::metadata(&whole).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(
        fs::metadata(whole.join("report.txt")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let second = write(&store, &name_of(1), MIB).unwrap();
    assert_eq!(
        second.file_name().unwrap().to_str().unwrap(),
        format!("{}-2", name_of(1))
    );
}

#[test]
fn what_was_never_finished_goes() {
    let folder = tempfile::tempdir().unwrap();
    let here = store(folder.path(), 10 * MIB);
    drop(here.begin(&name_of(1)).unwrap());
    assert_eq!(listed(folder.path()), [""; 0]);
    // As a killed run leaves it, and one that somebody put something into.
    for (second, file) in [(2, "report.txt"), (3, "notes.txt")] {
        let partial = folder.path().join(name::partial(&name_of(second)));
        fs::create_dir(&partial).unwrap();
        fs::write(partial.join(file), "half").unwrap();
    }
    drop(here);
    store(folder.path(), 10 * MIB);
    assert_eq!(listed(folder.path()), [name::partial(&name_of(3))]);
}

#[test]
fn the_oldest_go_first_and_nothing_else_ever() {
    let folder = tempfile::tempdir().unwrap();
    let here = store(folder.path(), 10 * MIB);
    // Older than all, and not ours, each for a reason of its own.
    let others = [
        "incident-20200101T000000Z-a",
        "incident-20200101T000000Z-b",
        "incident-mine",
        "zzz",
    ];
    for other in others {
        fs::create_dir(folder.path().join(other)).unwrap();
        fs::write(folder.path().join(other).join("report.txt"), "mine").unwrap();
    }
    let with_notes = write(&here, "incident-20200101T000000Z-c", MIB).unwrap();
    fs::write(with_notes.join("notes.txt"), "mine").unwrap();
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join(MARK), format!("{{\"schema\":\"{MARK_SCHEMA}1\"}}")).unwrap();
    std::os::unix::fs::symlink(target.path(), folder.path().join("incident-20200101T000000Z-d")).unwrap();
    let kept = listed(folder.path());

    for second in 0..6 {
        write(&here, &name_of(second), 3 * MIB).unwrap();
    }
    let mut expected = kept;
    expected.extend([3, 4, 5].map(name_of));
    expected.sort();
    assert_eq!(listed(folder.path()), expected);
    assert!(target.path().join(MARK).exists() && with_notes.join("recording.jsonl.zst").exists());
}

#[test]
fn a_file_larger_than_the_limit_is_refused_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let here = store(folder.path(), 2 * MIB);
    let error = write(&here, &name_of(1), 3 * MIB).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge(_)), "{error}");
    assert!(error.to_string().contains("--max-disk"), "{error}");
    assert_eq!(listed(folder.path()), [""; 0]);
    let mut draft = here.begin(&name_of(2)).unwrap();
    let large = vec![0; 3 << 20];
    draft.file("kernel.log", |out| out.write_all(&large)).unwrap_err();
    draft
        .file("report.txt", |out| out.write_all(&large[..MIB as usize]))
        .unwrap();
    let whole = draft.finish().unwrap();
    assert_eq!(listed(&whole), ["report.txt"]);
}

#[test]
fn two_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path(), MIB);
    let error = Store::open(folder.path(), MIB).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    drop(first);
    store(folder.path(), MIB);
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Store::open(&file, MIB), Err(StoreError::Folder { .. })));
}
