//go:build linux

package powercut

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/crosscompile/qemu"
)

// board is the procedure of firmware-notes/power-loss.md on disks of files: the
// writer is killed three times and looks each time; then an older copy of the
// state directory is put in its place, which it must notice.
const board = `set -eu
mount --make-rprivate /
cd "$1"
truncate -s 64M system; truncate -s 1M marks
mke2fs -q -F -t ext4 system
mount -o loop system /mnt
partition=$(losetup -f --show marks)
trap 'cd /; umount /mnt; losetup -d $partition' EXIT
look() { timeout -s KILL "$1" ./writer -dir /mnt/postern -marks-on $partition -flush || true; }
look 1; look 1; look 1
cp -a /mnt/postern older
look 1
rm -rf /mnt/postern; cp -a older /mnt/postern
look 20
`

func TestWriterOnABoardNoticesWhatIsGone(t *testing.T) {
	needs(t, "short")
	qemu.Tools(t, "unshare", "losetup", "timeout")
	dir := folder(t)
	root, err := qemu.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := command(t.Context(), root, []string{"CGO_ENABLED=0"}, "go", "build", "-o", filepath.Join(dir, "writer"), "./crosscompile/qemu/powercut/writer"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "unshare", "-m", "sh", "-c", board, "board", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if kept, lost := strings.Count(string(out), "kept: mark"), strings.Count(string(out), "LOST acknowledged and gone: identity: "); kept != 3 || lost != 1 {
		t.Fatalf("kept %d times and lost %d times, want 3 and 1:\n%s", kept, lost, out)
	}
}
