// Package export_wirehook_plugin_handler is what the generated exports call. Its name is theirs to choose.
package export_wirehook_plugin_handler

import (
	"github.com/wirehook/wirehook/sdk/go/internal/bindings/wirehook_plugin_types"
	witTypes "github.com/wirehook/wirehook/sdk/go/internal/bindings/wit/types"
)

// OnEvent is the plugin's function between the contract's types; wirehook.Export sets it.
var OnEvent func(wirehook_plugin_types.Event) witTypes.Result[[]wirehook_plugin_types.Webhook, wirehook_plugin_types.Failure]
