//! The JSON Schema of a recording's lines, made of the very types that are written and read.

use std::borrow::Cow;

use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};
use tracer_common::{Kind, Region};

use super::event::{AlertKind, Event, FORMAT};

/// The schema of every line that a reader of this major version meets: what older versions left out is not required,
/// and types, fields and names of later versions are allowed.
#[must_use]
pub fn schema() -> Schema {
    let mut schema = generate(SchemaSettings::draft2020_12().for_deserialize());
    let known: Vec<Value> = types(&schema).into_iter().map(Value::from).collect();
    if let Some(Value::Array(branches)) = schema.get_mut("oneOf") {
        branches.push(json!({
            "description": "A type of a later version.",
            "type": "object",
            "properties": { "type": { "type": "string", "not": { "enum": known } } },
            "required": ["type"]
        }));
    }
    schema
}

/// The schema of a line as this version writes it: nothing is missing, and names are those of this version.
#[must_use]
pub fn written_schema() -> Schema {
    generate(SchemaSettings::draft2020_12().for_serialize())
}

fn generate(settings: SchemaSettings) -> Schema {
    let mut schema = settings.into_generator().into_root_schema_for::<Event>();
    schema.insert("title".to_owned(), format!("A line of a {FORMAT}").into());
    schema
}

/// The types of lines that a schema tells apart.
fn types(schema: &Schema) -> Vec<String> {
    let branches = schema.get("oneOf").and_then(Value::as_array);
    branches
        .into_iter()
        .flatten()
        .filter_map(|branch| branch.pointer("/properties/type/const")?.as_str())
        .map(str::to_owned)
        .collect()
}

/// A name out of a list that later versions may add to.
fn name(description: &str, names: &[&str], generator: &SchemaGenerator) -> Schema {
    if *generator.contract() == Contract::Serialize {
        json_schema!({ "description": description, "type": "string", "enum": names })
    } else {
        json_schema!({ "description": description, "type": "string", "examples": names })
    }
}

/// A kind of memory by its name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KindName;

impl JsonSchema for KindName {
    fn schema_name() -> Cow<'static, str> {
        "Kind".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        name("A kind of memory.", &Kind::ALL.map(Kind::as_str), generator)
    }
}

/// A region by its name.
pub(super) struct RegionName;

impl JsonSchema for RegionName {
    fn schema_name() -> Cow<'static, str> {
        "Region".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        name("What memory backs.", &Region::ALL.map(Region::as_str), generator)
    }
}

impl JsonSchema for AlertKind {
    fn schema_name() -> Cow<'static, str> {
        "AlertKind".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let names = [Self::Eta, Self::Headroom, Self::Rate].map(Self::as_str);
        name("What an alert watches.", &names, generator)
    }
}
