//go:build linux

// Command demo builds a flashable disk image for QEMU's arm64 board: the model
// for images of real boards. It has two system slots and a data partition, and
// boots by U-Boot or by UEFI. Root is not needed.
//
//	go run ./crosscompile/images/demo build -out DIR       # DIR/postern-demo.img
//	go run ./crosscompile/images/demo claim IMAGE FILE     # the factory's claim goes onto the data partition
//	go run ./crosscompile/images/demo update -out FILE     # a system for the other slot
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("demo "+verb, flag.ContinueOnError)
	out := flags.String("out", ".", "where to: a folder, for update a file")
	version := flags.String("version", "", "version of the product in the image")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case verb == "build" && flags.NArg() == 0:
		image, err := build(ctx, *out, system{version: *version})
		if err == nil {
			fmt.Println(image)
		}
		return err
	case verb == "update" && flags.NArg() == 0:
		return bundle(ctx, *out, system{version: *version})
	case verb == "claim" && flags.NArg() == 2:
		return putClaim(ctx, flags.Arg(0), flags.Arg(1))
	}
	return errors.New("usage: demo build -out DIR | demo claim IMAGE FILE | demo update -out FILE")
}
