#!/bin/sh
# Writes internal/bindings anew, after a change of wit/ or for a newer wit-bindgen. Needs Go, and
#   cargo install wit-bindgen-cli --version 0.61.1 --locked --no-default-features --features c,go
#
# The bindings and their runtime become packages of this module, so that a plugin needs no module proxy. The handler that
# the exports call is internal/bindings/export_wirehook_plugin_handler, which is written by hand.
set -eu
cd "$(dirname "$0")"
VERSION=0.61.1
MODULE=github.com/wirehook/wirehook/sdk/go/internal/bindings
RUNTIME=$(ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/wit-bindgen-go-"$VERSION"/src/pkg)
TO=internal/bindings

find "$TO" -mindepth 1 -maxdepth 1 ! -name export_wirehook_plugin_handler -exec rm -r {} +
wit-bindgen go ../../wit --world subscriber --out-dir "$TO"
rm "$TO/go.mod"
mkdir -p "$TO/wit"
cp -r "$RUNTIME/wit/runtime" "$TO/wit/"
mkdir "$TO/wit/types"
cp "$RUNTIME"/wit/types/option.go "$RUNTIME"/wit/types/result.go "$RUNTIME"/wit/types/tuple.go "$RUNTIME"/wit/types/unit.go "$TO/wit/types/"
cp "$RUNTIME/LICENSE" "$TO/wit/LICENSE"

find "$TO" -name '*.go' | while read -r file; do
    sed -e "s|\"go.bytecodealliance.org/pkg/|\"$MODULE/|" -e "s|\"wit_component/|\"$MODULE/|" "$file" > "$file.draft"
    mv "$file.draft" "$file"
done
# The exports are linked into the plugin's own main package, and exist only there where it is WebAssembly.
sed -e 's/^package main$/package bindings/' -e '/^\/\/ Unused, but present/d' -e '/^func main() {}$/d' "$TO/wit_exports.go" > "$TO/wit_exports_wasip1.go"
rm "$TO/wit_exports.go"
gofmt -w "$TO"
