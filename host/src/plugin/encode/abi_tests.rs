//! `wit/abi.md` says what is so.

use wit_parser::{Resolve, SizeAlign, Type, TypeDefKind};

use super::*;
use crate::plugin::fixture::{engine, event};
use crate::plugin::{Manifest, Plugin};

const PAGE: &str = include_str!("../../../../wit/abi.md");

/// The cells of the table under the line that contains `heading`, without the code's marks; its head is left out.
fn table(heading: &str) -> Vec<Vec<String>> {
    let lines = PAGE.lines().skip_while(|line| !line.contains(heading)).skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect()
}

fn record<'a>(resolve: &'a Resolve, name: &str) -> (wit_parser::TypeId, &'a wit_parser::Record) {
    let named = resolve.types.iter().filter(|(_, ty)| ty.name.as_deref() == Some(name));
    named
        .filter_map(|(id, ty)| if let TypeDefKind::Record(record) = &ty.kind { Some((id, record)) } else { None })
        .next()
        .unwrap()
}

#[test]
fn the_records_are_laid_out_as_the_page_says() {
    let (resolve, _) = contract().unwrap();
    let mut sizes = SizeAlign::default();
    sizes.fill(&resolve);
    for name in ["event", "webhook"] {
        let (id, record) = record(&resolve, name);
        let heading = format!("### The record `{name}`: {} bytes", sizes.size(&Type::Id(id)).size_wasm32());
        assert!(PAGE.contains(&heading), "{heading}");
        let offsets = sizes.field_offsets(record.fields.iter().map(|field| &field.ty));
        let expected: Vec<_> = offsets
            .iter()
            .zip(&record.fields)
            .map(|((offset, _), field)| (offset.size_wasm32().to_string(), field.name.clone()))
            .collect();
        let page: Vec<_> = table(&heading).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
        assert_eq!(page, expected, "{name}");
    }
}

#[test]
fn the_result_is_laid_out_as_the_page_says() {
    let (resolve, world) = contract().unwrap();
    let mut sizes = SizeAlign::default();
    sizes.fill(&resolve);
    let handler = resolve.worlds[world].exports.values().next().unwrap();
    let wit_parser::WorldItem::Interface { id, .. } = handler else { panic!("{handler:?}") };
    let result = resolve.interfaces[*id].functions["on-event"].result.unwrap();
    let bytes = sizes.size(&result).size_wasm32();
    assert!(PAGE.contains(&format!("### The result: {bytes} bytes")), "{bytes}");
    let Type::Id(result) = result else { panic!("{result:?}") };
    let TypeDefKind::Result(result) = &resolve.types[result].kind else { panic!("no result") };
    let payload = sizes.payload_offset(wit_parser::Int::U8, [result.ok.as_ref(), result.err.as_ref()]);
    let (Some(Type::Id(failure)), Some(list)) = (result.err, result.ok) else { panic!("{result:?}") };
    let failure = match &resolve.types[failure].kind {
        TypeDefKind::Type(Type::Id(used)) => &resolve.types[*used].kind,
        kind => kind,
    };
    let TypeDefKind::Variant(failure) = failure else { panic!("{failure:?}") };
    let text = sizes.payload_offset(failure.tag(), failure.cases.iter().map(|case| case.ty.as_ref()));
    let cases: Vec<_> = failure.cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(cases, ["retry", "reject"]);
    assert_eq!(sizes.size(&list).size_wasm32(), 8);
    let offsets: Vec<_> = table("### The result").into_iter().map(|row| row[0].clone()).collect();
    let payload = payload.size_wasm32();
    let text = payload + text.size_wasm32();
    assert_eq!(offsets, [0, payload, text, text + 4].map(|offset| offset.to_string()));
}

#[test]
fn the_core_types_are_the_pages() {
    let (resolve, world) = contract().unwrap();
    let shape = Shape::of(&resolve, world);
    let named = |rows: Vec<Vec<String>>, name: fn(&[String]) -> String, ty: usize| {
        rows.into_iter().map(|row| (name(&row), row[ty].clone())).collect::<std::collections::BTreeMap<_, _>>()
    };
    let mut exports = named(table("## What the module exports"), |row| row[0].clone(), 1);
    assert_eq!(exports.remove("memory").as_deref(), Some("memory"));
    assert_eq!(exports, shape.described_exports());

    let imports = named(table("## What it may import"), |row| format!("{} {}", row[0], row[1]), 2);
    let described = shape.described_imports();
    for (import, ty) in &imports {
        assert_eq!(described.get(import), Some(ty), "{import}");
    }
    let is_always_there = |name: &&String| name.contains("plugin/log@") || name.contains("plugin/config@");
    assert!(described.keys().filter(is_always_there).all(|name| imports.contains_key(name)), "{imports:?}");
}

#[test]
fn the_levels_are_numbered_as_the_page_says() {
    let (resolve, _) = contract().unwrap();
    let level = resolve.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("level")).unwrap().1;
    let TypeDefKind::Enum(level) = &level.kind else { panic!("{level:?}") };
    let words: Vec<_> = level.cases.iter().enumerate().map(|(at, case)| format!("`{}` {at}", case.name)).collect();
    assert!(PAGE.contains(&words.join(", ")), "{words:?}");
}

#[test]
fn the_pages_plugin_does_what_the_page_says() {
    let wat = PAGE.split("```wat\n").nth(1).unwrap().split("```").next().unwrap();
    let wasm = wat::parse_str(wat).unwrap();
    let (engine, _dir) = engine();
    let manifest = Manifest { config: [("endpoint".to_owned(), "crm".to_owned())].into(), ..Manifest::default() };
    let plugin = Plugin::load(&engine, "page", &wasm, manifest).unwrap();
    // More than a page of memory, several times: it grows, and starts anew.
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(100_000));
    for entity in ["{\"total\":129.50}", &long, "{}"] {
        let event = crate::event::Event { entity: Some(entity.as_bytes().to_vec().into()), ..event("{}") };
        let webhooks = plugin.call(&event, 1).result.unwrap();
        assert_eq!(webhooks.len(), 1);
        assert_eq!(webhooks[0].endpoint.as_deref(), Some("crm"));
        assert_eq!(webhooks[0].body.to_vec(), entity.as_bytes());
        assert!(webhooks[0].headers.is_empty() && webhooks[0].key.is_none());
    }
    let without = crate::event::Event { entity: None, ..event("{}") };
    let failure = plugin.call(&without, 1).result.unwrap_err();
    assert!(format!("{failure:?}").contains("there is no entity"), "{failure:?}");
}
