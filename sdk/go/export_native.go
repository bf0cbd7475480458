//go:build !wasip1

package wirehook

func export(OnEvent) {}
