module github.com/wirehook/wirehook/sdk/go

go 1.25
