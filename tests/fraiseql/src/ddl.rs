//! What FraiseQL's migrations create.

use anyhow::Result;
use fraiseql_cdc_sinks::outbox_sink_state_migration_sql;
use fraiseql_observers::migrations::{
    entity_change_log_capture_trigger_sql, entity_change_log_contract_sql, entity_change_log_rls_sql,
};

/// Where the bridge keeps how far it is. Migration 03 creates it, which the crate has and does not export.
const CHECKPOINT: &str = "CREATE TABLE core.tb_transport_checkpoint (
    transport_name TEXT PRIMARY KEY, last_pk BIGINT NOT NULL, updated_at TIMESTAMPTZ NOT NULL DEFAULT now());";

/// Prints them in the order they are to be run.
pub(crate) fn print() -> Result<()> {
    let migrations = [
        entity_change_log_contract_sql(),
        entity_change_log_capture_trigger_sql(),
        entity_change_log_rls_sql(),
        outbox_sink_state_migration_sql(),
        CHECKPOINT,
    ];
    println!("{}", migrations.join("\n"));
    Ok(())
}
