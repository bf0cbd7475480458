module go_probe

go 1.25

require github.com/wirehook/wirehook/sdk/go v0.0.0

replace github.com/wirehook/wirehook/sdk/go => ../../../../sdk/go
