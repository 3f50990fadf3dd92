//! The recording format as its schema tells it, and as a table for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Tables of every type of line and every type of field, as Markdown.
///
/// # Errors
/// When the schema is not of the form that is expected.
pub fn tables(schema: &Value) -> Result<String> {
    let mut text = String::new();
    let mut shown = BTreeSet::new();
    for branch in schema["oneOf"].as_array().context("a schema tells types apart")? {
        let Some(name) = branch["properties"]["type"]["const"].as_str() else {
            continue;
        };
        let type_name = branch["$ref"].as_str().and_then(last).context("a type has fields")?;
        shown.insert(type_name.to_owned());
        object(&mut text, &format!("`{name}`"), &schema["$defs"][type_name])?;
    }
    for (name, definition) in schema["$defs"].as_object().context("a schema has parts")? {
        if shown.contains(name) {
            continue;
        }
        if definition["properties"].is_object() {
            object(&mut text, name, definition)?;
        } else {
            let names = definition["examples"].as_array().map_or(&[][..], Vec::as_slice);
            let names: Vec<String> = names
                .iter()
                .filter_map(|name| Some(format!("`{}`", name.as_str()?)))
                .collect();
            let _ = writeln!(text, "#### {name}\n\n{} {}\n", described(definition)?, names.join(", "));
        }
    }
    Ok(text.trim_end().replace(" \n", "\n"))
}

fn object(text: &mut String, name: &str, definition: &Value) -> Result<()> {
    let _ = writeln!(
        text,
        "#### {name}\n\n{}\n\n| field | is | says |\n| --- | --- | --- |",
        described(definition)?
    );
    let required: Vec<&Value> = definition["required"].as_array().into_iter().flatten().collect();
    for (field, is) in definition["properties"].as_object().context("a type has fields")? {
        let optional = if required.iter().any(|name| *name == field) {
            ""
        } else {
            ", may be absent"
        };
        let says = described(is).with_context(|| format!("{name}.{field}"))?;
        let _ = writeln!(text, "| `{field}` | {}{optional} | {says} |", kind(is)?);
    }
    text.push('\n');
    Ok(())
}

/// What a field is, in words.
fn kind(field: &Value) -> Result<String> {
    if let Some(name) = field["$ref"].as_str().and_then(last) {
        return Ok(link(name));
    }
    if let Some(choices) = field["anyOf"].as_array() {
        return Ok(choices.iter().map(kind).collect::<Result<Vec<_>>>()?.join(" or "));
    }
    let named = |name: &str| -> Result<String> {
        Ok(match name {
            "array" => format!("list of {}", kind(&field["items"])?),
            "object" => match field["propertyNames"]["$ref"].as_str().and_then(last) {
                Some(key) => format!("{} of each {}", kind(&field["additionalProperties"])?, link(key)),
                None => format!("{} by name", kind(&field["additionalProperties"])?),
            },
            name => name.to_owned(),
        })
    };
    match &field["type"] {
        Value::String(name) => named(name),
        Value::Array(names) => {
            let names = names.iter().filter_map(Value::as_str).map(named);
            Ok(names.collect::<Result<Vec<_>>>()?.join(" or "))
        }
        other => anyhow::bail!("what is {other} in {field}?"),
    }
}

fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}

fn last(reference: &str) -> Option<&str> {
    reference.rsplit('/').next()
}

/// What is said of a type or field, in one line, without the marks of links to code.
fn described(schema: &Value) -> Result<String> {
    let text = schema["description"].as_str().context("it is not described")?;
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(words
        .join(" ")
        .replace("[`", "`")
        .replace("`]", "`")
        .replace('|', "\\|"))
}

/// The part of a document that is written by a program: between `<!-- NAME: written by ... -->` and `<!-- NAME: end -->`.
///
/// # Errors
/// When the document has no such part.
pub fn written_part<'a>(document: &'a str, name: &str) -> Result<&'a str> {
    let after = document
        .split_once(&format!("<!-- {name}: written by "))
        .and_then(|(_, rest)| rest.split_once("-->\n"))
        .with_context(|| format!("no part {name} begins"))?
        .1;
    Ok(after
        .split_once(&format!("<!-- {name}: end -->"))
        .with_context(|| format!("the part {name} has no end"))?
        .0)
}
