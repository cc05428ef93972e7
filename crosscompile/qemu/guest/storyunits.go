//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// metadata: the units of the instance metadata address are off until somebody
// asks for them, as their own words say; then members have their token there,
// strangers have not, and afterwards the address is not ours any more.
func (s *story) metadata() (string, error) {
	good, err := os.ReadFile(configFile)
	if err != nil {
		return "", err
	}
	if _, err := imds().dial(); err == nil {
		return "", errors.New("the address answers although nobody asked for it")
	}
	if err := os.WriteFile(configFile, []byte(string(good)+"\n[imds]\nenabled = true\n"), 0o644); err != nil {
		return "", err
	}
	if err := commands([][]string{
		{"systemctl", "stop", unit},
		{"systemctl", "enable", "--now", "postern-imds.socket"},
		{"systemctl", "start", unit},
	}, 0); err != nil {
		return s.routeWords(), err
	}
	a, err := ask(s.member, "imds")
	if err == nil && (a.Second != 200 || a.Token != s.memory.Token) {
		err = fmt.Errorf("a member got %d: %s", a.Second, a.Body)
	}
	if err != nil {
		return "", err
	}
	if a, err = ask(s.stranger, "imds"); err == nil && (a.Second != 403 || !strings.Contains(a.Body, "access_denied")) {
		err = fmt.Errorf("a stranger got %d: %s", a.Second, a.Body)
	}
	if err != nil {
		return "", err
	}
	if err := commands([][]string{{"systemctl", "stop", unit}, {"systemctl", "disable", "--now", "postern-imds.socket"}}, 0); err != nil {
		return "", err
	}
	if err := wait(patient, func() error { // the unit of the route stops after the socket
		if _, err := imds().dial(); !errors.Is(err, syscall.ENETUNREACH) {
			return fmt.Errorf("the address is still ours: %w", err)
		}
		return nil
	}); err != nil {
		return s.routeWords(), err
	}
	if err := os.WriteFile(configFile, good, 0o644); err != nil {
		return "", err
	}
	if _, err := run([]string{"systemctl", "start", unit}, 0); err != nil {
		return "", err
	}
	_, err = s.sameToken()
	return fmt.Sprintf("%d for a member, %d for a stranger", 200, a.Second), err
}

// routeWords is what the units of the address said.
func (s *story) routeWords() string {
	words, _ := run([]string{"journalctl", "--no-pager", "--output=cat", "--unit=postern-imds.*"}, 0)
	return words
}

// mounted: the tokens move from the link to a mount of their own, for
// containers, and back.
func (s *story) mounted() (string, error) {
	const path = "/var/opt/azcmagent/tokens"
	link := place{Path: path, Link: "/run/postern/tokens"}
	for _, c := range []struct {
		verb []string
		want place
	}{
		{[]string{agent, "discovery", "on", "--tokens", "mount"}, place{Path: path, Owner: "postern:himds", Mode: "drwxr-x---"}},
		{[]string{agent, "discovery", "on"}, place{Path: path, Owner: "postern:himds", Mode: "drwxr-x---"}},
		{[]string{agent, "discovery", "off"}, place{}},
		{[]string{agent, "discovery", "on"}, link},
	} {
		if _, err := run(c.verb, 0); err != nil {
			return "", err
		}
		if c.want.Path == "" {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				return "", fmt.Errorf("%s is still there (%w)", path, err)
			}
			continue
		}
		if _, err := s.sameToken(); err != nil {
			return "", fmt.Errorf("%v: %w", c.verb, err)
		}
		if _, err := checkPlaces([]place{c.want}); err != nil {
			return "", fmt.Errorf("%v: %w", c.verb, err)
		}
		if _, err := s.refused(); err != nil {
			return "", fmt.Errorf("%v: %w", c.verb, err)
		}
	}
	return "", nil
}
