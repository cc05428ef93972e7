//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// unit is one piece of load: what an SDK does to get one token.
type unit func(client *http.Client) error

// figures are what one row measures.
type figures struct {
	p50, p99 time.Duration
	rate     float64 // units a second
}

// loadRows drives each flavour and the floor in turn, at 1 and at 16 callers.
func (b *bench) loadRows(ctx context.Context, o options, t *tabwriter.Writer) error {
	floorDir := filepath.Join(b.runtime, "floor") // the same file system as the agent's token directory
	if err := os.MkdirAll(floorDir, 0o750); err != nil {
		return err
	}
	floor := exec.CommandContext(ctx, b.floor, "-addr", floorAddr, "-dir", floorDir)
	if err := floor.Start(); err != nil {
		return err
	}
	defer func() { _ = floor.Process.Kill(); _ = floor.Wait() }()
	arc := "http://" + arcAddr + "/metadata/identity/oauth2/token?api-version=2020-06-01&resource=" + resource
	app := "http://" + appAddr + "/msi/token?api-version=2019-08-01&resource=" + resource
	rows := []struct {
		name        string
		ours, floor unit
	}{
		{"IMDS", get(imdsURL(), "Metadata", "true"), get("http://"+floorAddr+"/imds", "Metadata", "true")},
		{"App Service", get(app, "X-IDENTITY-HEADER", b.secret), get("http://"+floorAddr+"/imds", "Metadata", "true")},
		{"Arc handshake", handshake(arc), handshake("http://" + floorAddr + "/arc")},
	}
	for _, row := range rows {
		for _, callers := range []int{1, 16} {
			ours, base, err := sideBySide(o, callers, row.ours, row.floor)
			if err != nil {
				return fmt.Errorf("%s: %w", row.name, err)
			}
			_, _ = fmt.Fprintf(t, "%s, cached, %d callers\tp50 %.0f us, p99 %.0f us, %.0f/s\tfloor p50 %.0f us, p99 %.0f us, %.0f/s: %.2fx\n",
				row.name, callers, us(ours.p50), us(ours.p99), ours.rate, us(base.p50), us(base.p99), base.rate, float64(ours.p50)/float64(base.p50))
		}
	}
	rss, err := b.proc("smaps_rollup", "Rss:")
	_, _ = fmt.Fprintf(t, "resident memory after load\t%.1f MB\t\n", float64(rss)/1024)
	return err
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// sideBySide alternates the two, so that a machine that slows down slows both.
func sideBySide(o options, callers int, ours, floor unit) (a, b figures, err error) {
	const turns = 3
	var as, bs []figures
	for range turns {
		x, err := drive(o.load, callers, ours)
		if err != nil {
			return a, b, fmt.Errorf("postern: %w", err)
		}
		y, err := drive(o.load, callers, floor)
		if err != nil {
			return a, b, fmt.Errorf("floor: %w", err)
		}
		as, bs = append(as, x), append(bs, y)
	}
	return median(as), median(bs), nil
}

func median(list []figures) figures {
	slices.SortFunc(list, func(a, b figures) int { return int(a.p50 - b.p50) })
	return list[len(list)/2]
}

func drive(d time.Duration, callers int, do unit) (figures, error) {
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var group sync.WaitGroup
	began := time.Now()
	for range callers {
		group.Go(func() {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: 10 * time.Second}
			defer client.CloseIdleConnections()
			own := make([]time.Duration, 0, 1<<16)
			for time.Since(began) < d {
				start := time.Now()
				if err := do(client); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				own = append(own, time.Since(start))
			}
			mu.Lock()
			all = append(all, own...)
			mu.Unlock()
		})
	}
	group.Wait()
	if failed != nil || len(all) == 0 {
		return figures{}, errors.Join(failed, errIf(len(all) == 0, "no unit was done"))
	}
	slices.Sort(all)
	return figures{
		p50: all[len(all)/2], p99: all[len(all)*99/100],
		rate: float64(len(all)) / time.Since(began).Seconds(),
	}, nil
}

func errIf(yes bool, text string) error {
	if yes {
		return errors.New(text)
	}
	return nil
}

func get(url, header, value string) unit {
	return func(client *http.Client) error {
		_, err := call(client, url, header, value, http.StatusOK)
		return err
	}
}

// handshake is two requests and the read of a file between them.
func handshake(url string) unit {
	return func(client *http.Client) error {
		head, err := call(client, url, "Metadata", "true", http.StatusUnauthorized)
		if err != nil {
			return err
		}
		_, path, ok := strings.Cut(head.Get("Www-Authenticate"), "realm=")
		if !ok {
			return errors.New("no realm in the challenge")
		}
		key, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = call(client, url, "Authorization", "Basic "+string(key), http.StatusOK)
		return err
	}
}

func call(client *http.Client, url, header, value string, want int) (http.Header, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Metadata", "true")
	req.Header.Set(header, value)
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err == nil && resp.StatusCode != want {
		err = fmt.Errorf("status %d, want %d: %s", resp.StatusCode, want, body)
	}
	return resp.Header, err
}
