//go:build linux

package main

import "slices"

// programs are what guest plays under an init, by their first argument.
func programs() map[string]func(args []string) int {
	return map[string]func([]string) int{"memory": playMemory, "story": playStory, "story-ask": storyAsk, "story-prepare": prepareRoot}
}

func names() []string {
	var list []string
	for name := range programs() {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}
