use std::fs::File;

use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::plugin::compiler::Compiler;
use crate::plugin::fixture::{engine, event, guest};
use crate::plugin::{Engine, Manifest, Plugin, digest};

fn load(engine: &Arc<Engine>, wasm: &[u8]) -> Plugin {
    Plugin::load(engine, "orders", wasm, Manifest::default()).unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_second_engine_finds_what_the_first_compiled() {
    let (first, dir) = engine();
    let dir = dir.path().join("compiled");
    let wasm = guest("i32.const 1024");
    assert!(first.cache().load(first.wasmtime(), &digest(&wasm)).is_none());
    load(&first, &wasm);
    let [entry] = &files(&dir)[..] else { panic!("one file, one entry") };
    assert_eq!((mode(&dir), mode(entry)), (0o700, 0o600));

    let second = Engine::new(1, &dir, Compiler::InProcess, SystemClock::shared()).unwrap();
    assert!(second.cache().load(second.wasmtime(), &digest(&wasm)).is_some());
    assert_eq!(load(&second, &wasm).call(&event("{}"), 1).result, Ok(Vec::new()));
}

#[test]
fn an_unsound_entry_is_compiled_again_and_replaced() {
    let (engine, dir) = engine();
    let dir = dir.path().join("compiled");
    let wasm = guest("i32.const 1024");
    load(&engine, &wasm);
    let entry = files(&dir).remove(0);
    let sound = fs::read(&entry).unwrap();
    let flipped: Vec<u8> = sound.iter().enumerate().map(|(i, byte)| if i == 5_000 { !byte } else { *byte }).collect();
    // Sound by its checksum, but no code: the last line of defence is wasmtime's own header.
    let foreign = [MAGIC.as_slice(), Sha256::digest(b"no code").as_slice(), b"no code"].concat();
    for unsound in [flipped, sound[..sound.len() / 2].to_vec(), Vec::new(), b"WHCWASM0".to_vec(), foreign] {
        fs::write(&entry, unsound).unwrap();
        assert!(engine.cache().load(engine.wasmtime(), &digest(&wasm)).is_none());
        assert_eq!(load(&engine, &wasm).call(&event("{}"), 1).result, Ok(Vec::new()));
        assert!(engine.cache().load(engine.wasmtime(), &digest(&wasm)).is_some(), "it must have been replaced");
    }
}

#[test]
fn an_entry_that_is_a_link_is_not_followed() {
    let (engine, dir) = engine();
    let wasm = guest("i32.const 1024");
    load(&engine, &wasm);
    let entry = files(&dir.path().join("compiled")).remove(0);
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&entry, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &entry).unwrap();
    assert!(engine.cache().load(engine.wasmtime(), &digest(&wasm)).is_none());
}

#[test]
fn a_folder_that_others_could_write_is_mended_and_emptied() {
    let (engine, dir) = engine();
    let dir = dir.path().join("compiled");
    load(&engine, &guest("i32.const 1024"));
    let check = |mode_found: u32, entries_left: usize| {
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode_found)).unwrap();
        Engine::new(1, &dir, Compiler::InProcess, SystemClock::shared()).unwrap();
        assert_eq!((mode(&dir), files(&dir).len()), (0o700, entries_left), "{mode_found:o}");
    };
    check(0o755, 1);
    check(0o777, 0);
}

#[test]
fn what_is_no_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let check = |path: &Path| {
        let error =
            Engine::new(1, path, Compiler::InProcess, SystemClock::shared()).expect_err("no folder").to_string();
        assert!(error.contains("no folder"), "{error}");
    };
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    check(&file);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    check(&link);
}

#[test]
fn the_least_recently_used_entries_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::starting_at(Timestamp(1_700_000_000_000));
    let engine = Engine::new(1, &dir.path().join("compiled"), Compiler::InProcess, clock.clone()).unwrap();
    let cache = engine.cache();
    let wasm = guest("i32.const 1024");
    load(&engine, &wasm);
    for index in 0..ENTRIES_MAX {
        clock.advance(Duration::from_secs(1));
        // Used again and again, the first stays although it is the oldest.
        assert!(cache.load(engine.wasmtime(), &digest(&wasm)).is_some());
        cache.write(&format!("{index:064}"), b"").unwrap();
        cache.prune().unwrap();
    }
    assert_eq!(cache.entries().unwrap().len(), ENTRIES_MAX);
    assert!(!cache.path(&format!("{:064}", 0)).exists(), "the oldest that nobody used is gone");
    assert!(cache.path(&digest(&wasm)).exists());

    let stale = dir.path().join("compiled").join(format!("{TEMPORARY_PREFIX}x"));
    File::create(&stale).unwrap().set_modified(cache.now()).unwrap();
    cache.prune().unwrap();
    assert!(stale.exists(), "another host may be writing it");
    clock.advance(TEMPORARY_AGE_MAX + Duration::from_secs(1));
    cache.prune().unwrap();
    assert!(!stale.exists());
}
