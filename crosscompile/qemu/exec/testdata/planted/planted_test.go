package planted

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var how = flag.String("how", "", "what to do to the machine")

func sysrq(t *testing.T, key string) {
	t.Helper()
	if err := os.WriteFile("/proc/sysrq-trigger", []byte(key), 0o200); err != nil {
		t.Fatal(err)
	}
}

// TestPlanted passes, unless the machine does not let it.
func TestPlanted(t *testing.T) {
	switch *how {
	case "fail":
		t.Fatal("as it was told")
	case "power-off":
		sysrq(t, "o")
		<-time.After(time.Hour)
	case "panic":
		sysrq(t, "c")
	case "hang":
		<-time.After(time.Hour) // an empty select is a deadlock, which Go notices
	case "signal":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "memory": // another process is killed, and this one does not care
		hog := exec.Command(os.Args[0], "-how=eat")
		t.Log(hog.Run())
	case "eat":
		var all [][]byte
		for {
			page := make([]byte, 1<<20)
			for i := 0; i < len(page); i += 4096 {
				page[i] = 1
			}
			all = append(all, page)
		}
	}
}

// TestSurroundings shows the test what it was promised.
func TestSurroundings(t *testing.T) {
	if text, err := os.ReadFile("testdata/words"); err != nil || strings.TrimSpace(string(text)) != "packed" {
		t.Errorf("testdata: %q, %v", text, err)
	}
	if os.Getenv("GIVEN") != "by name" || os.Getenv("HELD_BACK") != "" {
		t.Errorf("GIVEN is %q, HELD_BACK is %q", os.Getenv("GIVEN"), os.Getenv("HELD_BACK"))
	}
	dir := os.Getenv("POSTERN_TEST_DIR")
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || fs.Type != 0xef53 || !strings.HasPrefix(t.TempDir(), dir) {
		t.Errorf("POSTERN_TEST_DIR %q has file system %x, %v", dir, fs.Type, err)
	}
	if _, err := os.Stat(filepath.Join("..", "..", "..", "..", "..", "go.mod")); err != nil {
		t.Error(err)
	}
	fmt.Print(word(), " ", os.Getpagesize(), "\n", "a line without an end")
	fmt.Fprintln(os.Stderr, strings.Repeat("x", 70_000))
}
