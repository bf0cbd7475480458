//! The suite of [`Store`], run on SQLite.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::cell::Cell;
use std::sync::Arc;

use wirehook::store::Store;
use wirehook::store::sqlite::{SqliteOptions, SqliteStore};
use wirehook_tests::conformance::store::{START, clock};

macro_rules! on_sqlite {
    ($($property:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $property() {
                let folder = tempfile::tempdir().unwrap();
                let opened = Cell::new(0);
                let factory = || -> Arc<dyn Store> {
                    opened.set(opened.get() + 1);
                    let path = folder.path().join(format!("{}.db", opened.get()));
                    let options = SqliteOptions { clock: clock(), ..SqliteOptions::new(path) };
                    Arc::new(SqliteStore::open(options, START).unwrap())
                };
                wirehook_tests::conformance::store::$property(factory).await;
            }
        )+
    };
}

wirehook_tests::for_each_store_property!(on_sqlite);
