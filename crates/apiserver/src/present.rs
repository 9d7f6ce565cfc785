//! Objects and lists in the version, form and encoding that a client asked for.
//!
//! Plain JSON in the stored version is the stored bytes, untouched. Metadata-only answers are cut out of them. Only
//! tables, YAML, indented JSON and other versions decode.

use std::collections::VecDeque;
use std::fmt::Write;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use jiff::Timestamp;
use kedge_meta::ApiStatus;
use kedge_store::{Record, Revision};
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::Call;
use crate::negotiate::{Accepted, Encoding, Form};
use crate::query::Query;
use crate::registry::Resource;
use crate::{negotiate, protobuf, reply, scan};

/// How many items of a list are moved before others get their turn.
const MOVED: usize = 8192;

/// How many items of a list are made anew before others get their turn.
const MADE: usize = 32;

/// How an answer about a resource is to look.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) accepted: Accepted,
    pub(crate) include: Include,
    pub(crate) now: Timestamp,
}

/// What a table's rows carry besides their cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

/// A list's own metadata.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListMeta {
    pub(crate) revision: Revision,
    pub(crate) continue_token: Option<String>,
    pub(crate) remaining: Option<usize>,
}

impl View {
    fn new(accepted: Accepted, query: &Query, now: Timestamp) -> Result<Self, ApiStatus> {
        let include = match query.get("includeObject").unwrap_or("") {
            "" | "Metadata" => Include::Metadata,
            "None" => Include::Nothing,
            "Object" => Include::Object,
            other => return Err(ApiStatus::bad_request(format!("unrecognized includeObject value: \"{other}\""))),
        };
        Ok(Self { accepted, include, now })
    }

    /// The view of a request about `resource`; 406 where it can't be had.
    pub(crate) fn of(call: &Call, resource: &Resource) -> Result<Self, ApiStatus> {
        let kind = &resource.kind;
        let has_message = || kedge_schema::has_protobuf(&kind.group, &kind.version, &kind.kind);
        let in_protobuf = |form: &Form| *form == Form::Metadata || has_message();
        let accepted = negotiate::accepted_by(&call.headers, &call.query, in_protobuf)?;
        Self::new(accepted, &call.query, call.now)
    }

    /// The answer to a request about one object.
    pub(crate) fn object(&self, resource: &Resource, code: StatusCode, stored: &Bytes) -> Response<Body> {
        if self.accepted.is_plain() {
            return reply::bytes(code, reply::JSON, in_version(resource, stored));
        }
        let text = self.render(resource, stored, true);
        match self.accepted.encoding {
            Encoding::Json { pretty: false } => reply::bytes(code, reply::JSON, text),
            encoding => reply::document(code, encoding, &decode(&text)),
        }
    }

    /// One object in the asked form, as compact JSON. Tables carry their columns if `with_columns`.
    pub(crate) fn render(&self, resource: &Resource, stored: &Bytes, with_columns: bool) -> Bytes {
        match self.accepted.form {
            Form::Object => in_version(resource, stored),
            Form::Metadata => metadata_only(stored),
            Form::Table(version) => {
                let revision = scan::text(stored, &["metadata", "resourceVersion"]);
                let meta = json!({"resourceVersion": revision}).to_string();
                let head = table_head(resource, version, &meta, with_columns);
                let row = self.row(resource, stored);
                [head.as_slice(), &row, b"]}"].concat().into()
            }
        }
    }

    /// The answer to a list.
    pub(crate) async fn list(&self, resource: &Resource, records: Vec<Record>, meta: &ListMeta) -> Response<Body> {
        if self.accepted.encoding == Encoding::Protobuf {
            let head = [self.list_head(resource, meta).as_slice(), b"]}"].concat();
            let items = records.iter().map(|record| self.item(resource, &record.value));
            return protobuf::list(&decode(&head), items).await;
        }
        let body = Body::pieces(self.list_pieces(resource, records, meta).await);
        match self.accepted.encoding {
            Encoding::Json { pretty: false } => reply::respond(StatusCode::OK, reply::JSON, body),
            encoding => reply::document(StatusCode::OK, encoding, &decode(&join(body))),
        }
    }

    async fn list_pieces(&self, resource: &Resource, records: Vec<Record>, meta: &ListMeta) -> VecDeque<Bytes> {
        let moved = self.accepted.form == Form::Object && resource.is_storage_version;
        let turn = if moved { MOVED } else { MADE };

        let mut pieces = VecDeque::with_capacity(records.len() * 2 + 2);
        pieces.push_back(Bytes::from(self.list_head(resource, meta)));
        for (index, record) in records.iter().enumerate() {
            if index % turn == turn - 1 {
                tokio::task::yield_now().await;
            }
            if index > 0 {
                pieces.push_back(Bytes::from_static(b","));
            }
            pieces.push_back(self.item(resource, &record.value));
        }
        pieces.push_back(Bytes::from_static(b"]}\n"));
        pieces
    }

    fn item(&self, resource: &Resource, stored: &Bytes) -> Bytes {
        match self.accepted.form {
            Form::Object => in_version(resource, stored),
            Form::Metadata => metadata_only(stored),
            Form::Table(_) => self.row(resource, stored).into(),
        }
    }

    fn list_head(&self, resource: &Resource, meta: &ListMeta) -> Vec<u8> {
        let meta = meta.text();
        let (kind, api_version) = match self.accepted.form {
            Form::Table(version) => return table_head(resource, version, &meta, true),
            Form::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1"),
            Form::Object => (&*resource.kind.list_kind, resource.api_version.as_str()),
        };
        format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"items\":[").into_bytes()
    }

    fn row(&self, resource: &Resource, stored: &Bytes) -> Vec<u8> {
        let mut object = decode(stored);
        resource.kind.from_storage(&mut object);
        let cells = Value::from(resource.kind.row(&object, self.now));
        let conditions = resource.kind.row_conditions(&object);
        let conditions = match conditions.is_empty() {
            true => String::new(),
            false => format!("\"conditions\":{},", Value::from(conditions)),
        };
        let object = match self.include {
            Include::Nothing => Bytes::from_static(b"null"),
            Include::Metadata => metadata_only(stored),
            Include::Object => in_version(resource, stored),
        };
        [format!("{{\"cells\":{cells},{conditions}\"object\":").as_bytes(), &object, b"}"].concat()
    }
}

impl ListMeta {
    fn text(&self) -> String {
        let mut text = format!("{{\"resourceVersion\":\"{}\"", self.revision);
        if let Some(token) = &self.continue_token {
            let _ = write!(text, ",\"continue\":\"{token}\"");
        }
        if let Some(remaining) = self.remaining {
            let _ = write!(text, ",\"remainingItemCount\":{remaining}");
        }
        text.push('}');
        text
    }
}

/// A stored object in the version that a resource is asked in.
pub(crate) fn in_version(resource: &Resource, stored: &Bytes) -> Bytes {
    if resource.is_storage_version {
        return stored.clone();
    }
    let mut object = decode(stored);
    resource.kind.from_storage(&mut object);
    object.to_string().into()
}

/// `PartialObjectMetadata` of a stored object.
fn metadata_only(stored: &[u8]) -> Bytes {
    let metadata = scan::field(stored, &["metadata"]).unwrap_or(b"{}");
    let mut bytes = BytesMut::with_capacity(metadata.len() + 80);
    bytes.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":");
    bytes.extend_from_slice(metadata);
    bytes.extend_from_slice(b"}");
    bytes.freeze()
}

/// A table up to and including the bracket of its rows.
fn table_head(resource: &Resource, version: &str, meta: &str, with_columns: bool) -> Vec<u8> {
    let definition = |column: &kedge_kinds::Column| {
        json!({"name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority})
    };
    let columns: Vec<Value> = match with_columns {
        true => resource.kind.columns().iter().map(definition).collect(),
        false => Vec::new(),
    };
    let columns = Value::from(columns);
    format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":{meta},\
         \"columnDefinitions\":{columns},\"rows\":["
    )
    .into_bytes()
}

fn decode(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|error| {
        tracing::error!(%error, "a stored object cannot be read");
        Value::Null
    })
}

fn join(mut body: Body) -> Vec<u8> {
    let mut text = Vec::with_capacity(body.length().unwrap_or(0));
    while let Some(bytes) = body.next_bytes() {
        text.extend_from_slice(&bytes);
    }
    text
}
