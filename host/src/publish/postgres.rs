//! To PostgreSQL: notifications, and rows of the outbox.

use bytes::Bytes;
use futures::future::{BoxFuture, try_join_all};
use serde_json::{Map, Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::{Publish, PublishError, Routed, Taken};
use crate::event::decode::{self, Format};
use crate::event::{Event, Message};
use crate::settings::{PostgresConnection, TableName};
use crate::source::postgres::connection::{Overflow, Session, quoted};
use crate::source::postgres::transaction::Parameter;
use crate::source::postgres::words::explain;

/// How the server's operator sees it.
const APPLICATION: &str = "wirehook-publish";
const NOTIFY: &str = "SELECT pg_catalog.pg_notify($1, $2)";

/// `NOTIFY`: whoever listens is notified once the statement has ended.
pub(super) struct NotifyPublisher {
    bus: String,
    session: Session,
}

/// The outbox: a batch of rows is there once its transaction is committed.
pub(super) struct OutboxPublisher {
    bus: String,
    session: Session,
    table: TableName,
}

impl NotifyPublisher {
    pub(super) async fn connect(bus: String, connection: &PostgresConnection) -> Result<Self, PublishError> {
        Ok(Self { session: session(&bus, connection).await?, bus })
    }
}

impl Publish for NotifyPublisher {
    fn publish<'a>(&'a mut self, batch: &'a [Routed]) -> BoxFuture<'a, Result<Taken, PublishError>> {
        Box::pin(async move {
            // Each is a transaction of its own: within one, the server would drop what is there twice.
            let this = &*self;
            let sent = batch.iter().map(|routed| async move {
                let payload = String::from_utf8_lossy(&routed.event.payload);
                let parameters: [Parameter<'_>; 2] = [(&&*routed.destination, Type::TEXT), (&&*payload, Type::TEXT)];
                let notified = this.session.client.execute_typed(NOTIFY, &parameters).await;
                notified.map_err(|error| refused(&this.bus, Some(routed), &error, ""))
            });
            try_join_all(sent).await?;
            Ok(Taken::default())
        })
    }
}

impl OutboxPublisher {
    pub(super) async fn connect(
        bus: String,
        connection: &PostgresConnection,
        table: TableName,
    ) -> Result<Self, PublishError> {
        Ok(Self { session: session(&bus, connection).await?, bus, table })
    }

    async fn write(&self, routed: &Routed) -> Result<(), PublishError> {
        let row = row(&routed.event.payload).map_err(|error| PublishError::Refused {
            bus: self.bus.clone(),
            line: routed.event.line,
            error,
            help: String::new(),
        })?;
        let insert = insert(&self.table, &row);
        let row = Value::Object(row).to_string();
        let written = self.session.client.execute_typed(&insert, &[(&row, Type::TEXT)]).await;
        written.map(drop).map_err(|error| self.not_written(Some(routed), &error))
    }

    fn not_written(&self, routed: Option<&Routed>, error: &tokio_postgres::Error) -> PublishError {
        let help = match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => format!(
                "reading the outbox takes no permission to write to it; for a trial, GRANT INSERT ON {} (and USAGE on its \
                 sequences) to the role, or publish as another",
                self.table
            ),
            _ => String::new(),
        };
        refused(&self.bus, routed, error, &help)
    }
}

impl Publish for OutboxPublisher {
    fn publish<'a>(&'a mut self, batch: &'a [Routed]) -> BoxFuture<'a, Result<Taken, PublishError>> {
        Box::pin(async move {
            let client = &self.session.client;
            client.batch_execute("BEGIN").await.map_err(|error| self.not_written(None, &error))?;
            // One by one: what fails is then the first that did, and not one that the broken transaction refused.
            for routed in batch {
                if let Err(error) = self.write(routed).await {
                    // An error means that the connection is gone, and the transaction with it.
                    let _ = client.batch_execute("ROLLBACK").await;
                    return Err(error);
                }
            }
            client.batch_execute("COMMIT").await.map_err(|error| self.not_written(batch.first(), &error))?;
            Ok(Taken::default())
        })
    }
}

/// The columns of the outbox that an event says something about.
///
/// # Errors
/// In words, for an event that is no change of an entity.
pub(super) fn row(payload: &Bytes) -> Result<Map<String, Value>, String> {
    let message = Message { subject: "".into(), payload: payload.clone(), headers: Vec::new(), position: None };
    let event = decode::decode(&"publish".into(), &message, decode::Fields::none(), String::new)
        .map_err(|error| error.to_string())?;
    if event.attributes.iter().any(|(name, value)| name == "format" && value == Format::Json.as_str()) {
        return Err("the event is in none of FraiseQL's formats; the outbox holds changes of entities only".to_owned());
    }
    let mut row = Map::new();
    let mut set = |column: &str, value: Value| {
        if !value.is_null() {
            row.insert(column.to_owned(), value);
        }
    };
    let json = |json: Option<&Bytes>| json.map_or(Value::Null, |json| serde_json::from_slice(json).unwrap_or_default());
    let Event { entity_type, operation, entity_id, tenant_id, entity, previous, .. } = &event;
    set("object_type", entity_type.as_str().into());
    set("modification_type", modification(operation).into());
    set("object_id", json!(entity_id));
    set("tenant_id", json!(tenant_id));
    set("object_data", json(entity.as_ref()));
    set("object_data_before", json(previous.as_ref()));
    Ok(row)
}

fn modification(operation: &str) -> &'static str {
    match operation {
        "created" => "INSERT",
        "updated" => "UPDATE",
        "deleted" => "DELETE",
        _ => "CUSTOM",
    }
}

/// Writes the columns of `row`, given as JSON, and leaves the others to their defaults. The server casts each to its
/// column's type.
fn insert(table: &TableName, row: &Map<String, Value>) -> String {
    let schema = table.schema.as_deref().map(|schema| format!("{}.", quoted(schema))).unwrap_or_default();
    let table = format!("{schema}{}", quoted(&table.table));
    let columns = row.keys().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
    format!(
        "INSERT INTO {table} ({columns}) SELECT {columns} \
         FROM pg_catalog.jsonb_populate_record(NULL::{table}, $1::text::jsonb)"
    )
}

async fn session(bus: &str, connection: &PostgresConnection) -> Result<Session, PublishError> {
    let connected = Session::connect(connection, APPLICATION, Overflow::Drop).await;
    let help = "start the server, or mend `url` and `password` of the source";
    connected.map_err(|error| super::unreachable(bus, &connection.url, &error, help))
}

fn refused(bus: &str, routed: Option<&Routed>, error: &tokio_postgres::Error, help: &str) -> PublishError {
    PublishError::Refused {
        bus: bus.to_owned(),
        line: routed.map_or(1, |routed| routed.event.line),
        error: explain(error),
        help: help.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_what_the_columns_of_its_row_are() {
        let row = |payload: &str| row(&Bytes::copy_from_slice(payload.as_bytes()));
        let page = r#"{"event":"fraiseql.order.created","entity_type":"order","operation":"created","entity_id":"a","entity":{"n":1}}"#;
        let expected =
            json!({"object_type": "order", "modification_type": "INSERT", "object_id": "a", "object_data": {"n": 1}});
        assert_eq!(Value::Object(row(page).unwrap()), expected);
        let change = r#"{"seq":7,"object_type":"Order","op":"delete","tenant_id":"t","object_id":"b","after":null,"before":{"n":1}}"#;
        let expected = json!({"object_type": "order", "modification_type": "DELETE", "object_id": "b", "tenant_id": "t",
            "object_data_before": {"n": 1}});
        assert_eq!(Value::Object(row(change).unwrap()), expected);
        assert!(row("{\"a\":1}").unwrap_err().contains("none of FraiseQL's formats"));
    }

    #[test]
    fn names_of_tables_are_quoted() {
        let table = TableName { schema: Some("co\"re".to_owned()), table: "log".to_owned() };
        let row = Map::from_iter([("object_type".to_owned(), "order".into())]);
        let expected = "INSERT INTO \"co\"\"re\".\"log\" (\"object_type\") SELECT \"object_type\" \
                        FROM pg_catalog.jsonb_populate_record(NULL::\"co\"\"re\".\"log\", $1::text::jsonb)";
        assert_eq!(insert(&table, &row), expected);
    }
}
