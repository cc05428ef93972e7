package challenge

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/platform"
)

var clientsExpect = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.key$`)

func TestChallengeFileIsWhatEveryClientAccepts(t *testing.T) {
	h := newHost(t)
	path, secret := mint(t, h.keeper(), alice)
	if dir, name := filepath.Split(path); dir != h.dirs.TokensLiteral+"/" || !clientsExpect.MatchString(name) {
		t.Errorf("path is %s", path)
	}
	raw, err := base64.RawURLEncoding.DecodeString(secret)
	if err != nil || len(raw) != 32 || len(secret) != 43 {
		t.Errorf("secret has %d characters, %d bytes, %v; want 43 of base64url without a newline", len(secret), len(raw), err)
	}
}

func TestHeaderCarriesTheLiteralPathNotTheTarget(t *testing.T) {
	for literal, want := range map[string]string{
		"/var/opt/azcmagent/tokens":  "/var/opt/azcmagent/tokens/",
		"/var/opt/azcmagent/tokens/": "/var/opt/azcmagent/tokens/",
	} {
		h := newHost(t)
		h.dirs.TokensLiteral = literal
		path, err := h.keeper().Mint(alice)
		if err != nil || !strings.HasPrefix(path, want) || !clientsExpect.MatchString(strings.TrimPrefix(path, want)) {
			t.Errorf("literal %s: path is %s, %v", literal, path, err)
		}
	}
}

func TestLiteralPathThatNoClientCouldParseIsRefused(t *testing.T) {
	for _, literal := range []string{"", "tokens", "/a=b/tokens", "/a\nb", "/a\"b", "/a,b", "/ä", "/a\x7f"} {
		h := newHost(t)
		h.dirs.TokensLiteral = literal
		if _, err := New(Options{Host: h, Poll: true}); err == nil {
			t.Errorf("literal %q: accepted", literal)
		}
	}
}

func TestChallengeIsGoneAfterTheFirst200(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	path, secret := mint(t, k, alice)
	ticket := mustRedeem(t, k, alice, secret)
	if !ticket.Consume() {
		t.Error("the first 200 did not get the challenge")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("file after the 200: %v", err)
	}
	mustRefuse(t, k, alice, secret, "used")
}

func TestChallengeSurvivesEveryAnswerButA200(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	path, secret := mint(t, k, alice)
	for range 5 {
		mustRedeem(t, k, alice, secret)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("file before the 200: %v", err)
	}
}

func TestTwoAnswersAtOnceUseAChallengeOnce(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	_, secret := mint(t, k, alice)
	a, b := mustRedeem(t, k, alice, secret), mustRedeem(t, k, alice, secret)
	if first, second := a.Consume(), b.Consume(); !first || second {
		t.Errorf("consumed %v and %v, want true and false", first, second)
	}
}

func TestChallengeOfAnotherPeerIsNotValid(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	_, secret := mint(t, k, alice)
	mustRefuse(t, k, bob, secret, "made for uid:1001, presented by uid:1002")
	mustRefuse(t, k, platform.Unknown, secret, "presented by unknown")
	mustRefuse(t, k, "uid:0", secret, "presented by uid:0")
	mustRedeem(t, k, alice, secret)

	_, secret = mint(t, k, platform.Unknown)
	mustRefuse(t, k, alice, secret, "made for unknown")
	mustRedeem(t, k, platform.Unknown, secret)
}

func TestOnlyTheExactSecretIsValid(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	_, secret := mint(t, k, alice)
	for _, wrong := range []string{
		"", " ", secret[:42], secret + "\n", " " + secret, secret + "=", strings.ToUpper(secret), strings.ToLower(secret),
		strings.Repeat("A", 43), strings.Repeat("\x00", 43), secret[:42] + "\x00",
	} {
		mustRefuse(t, k, alice, wrong, "")
	}
	mustRedeem(t, k, alice, secret)
}

func TestChallengeLives120Seconds(t *testing.T) {
	inBubble(t, &plain{}, func(t *testing.T, _ *host, k *Keeper) {
		path, secret := mint(t, k, alice)
		time.Sleep(Life - time.Nanosecond) // of the bubble
		ticket := mustRedeem(t, k, alice, secret)
		time.Sleep(time.Nanosecond)
		mustRefuse(t, k, alice, secret, "")
		after(time.Second)
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("file after its life: %v", err)
		}
		if !ticket.Consume() {
			t.Error("a challenge presented in time must still earn its 200, however long the token took")
		}
	})
}

func TestChallengeIsSweptAfterASuspendThatOutlastedIt(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	_, secret := mint(t, k, alice)
	h.pass(Life - 10*time.Second)
	k.scan()
	mustRedeem(t, k, alice, secret)
	h.pass(12 * time.Second)
	k.scan()
	mustRefuse(t, k, alice, secret, "")
	if names := h.names(); len(names) != 0 {
		t.Errorf("files: %q", names)
	}
}

func TestBootClockThatRunsBackwardsEndsNothing(t *testing.T) {
	h := newHost(t)
	h.pass(time.Hour)
	k := h.keeper()
	_, secret := mint(t, k, alice)
	h.pass(-time.Hour)
	k.scan()
	mustRedeem(t, k, alice, secret)
}

func TestPeerIsHeldToSixteenChallenges(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	var secrets []string
	for range MaxPerPeer {
		_, secret := mint(t, k, alice)
		secrets = append(secrets, secret)
	}
	if _, err := k.Mint(alice); !errors.Is(err, ErrTooMany) {
		t.Fatalf("17th challenge: %v, want ErrTooMany", err)
	}
	if n := len(h.names()); n != MaxPerPeer {
		t.Errorf("%d files, want %d", n, MaxPerPeer)
	}
	mustRedeem(t, k, alice, secrets[7])
	mustRedeem(t, k, alice, secrets[3])
	mint(t, k, alice)
	mustRefuse(t, k, alice, secrets[3], "used") // the oldest that was presented gave way
	mustRedeem(t, k, alice, secrets[7])
	mustRedeem(t, k, alice, secrets[0])
	if n := len(h.names()); n != MaxPerPeer {
		t.Errorf("%d files, want %d", n, MaxPerPeer)
	}
}

func TestExpiredChallengesFreeTheirPlaces(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	for range MaxPerPeer {
		mint(t, k, alice)
	}
	h.pass(Life + time.Second)
	k.age.wake()
	mint(t, k, alice)
	if n := len(h.names()); n != 1 {
		t.Errorf("%d files, want 1", n)
	}
}

func TestNoKeyGivesWayForAnotherPeer(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	secrets := make(map[platform.Peer]string)
	for i := range MaxOutstanding {
		peer := platform.UIDPeer(uint32(2000 + i/MaxPerPeer))
		_, secrets[peer] = mint(t, k, peer)
		mustRedeem(t, k, peer, secrets[peer])
	}
	if _, err := k.Mint(alice); !errors.Is(err, ErrBusy) {
		t.Fatalf("challenge beyond %d: %v, want ErrBusy", MaxOutstanding, err)
	}
	for peer, secret := range secrets {
		mustRedeem(t, k, peer, secret)
	}
	// Its own presented key a peer may give up even then.
	if _, err := k.Mint("uid:2000"); err != nil {
		t.Errorf("peer at its own cap: %v", err)
	}
	if n := len(h.names()); n != MaxOutstanding {
		t.Errorf("%d files, want %d", n, MaxOutstanding)
	}
}

func TestEP9FloodFromOneUidLeavesSixteenFilesAndOthersServed(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	for range 100_000 {
		if _, err := k.Mint(alice); err != nil && !errors.Is(err, ErrTooMany) {
			t.Fatal(err)
		}
	}
	if n := len(h.names()); n != MaxPerPeer {
		t.Errorf("%d files after the flood, want %d", n, MaxPerPeer)
	}
	_, secret := mint(t, k, bob)
	mustRedeem(t, k, bob, secret)
}

func TestKeeperHoldsNoSecret(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	_, secret := mint(t, k, alice)
	if strings.Contains(fmt.Sprintf("%+v %#v", k.keys, k), secret) {
		t.Error("the secret can be read from the keeper")
	}
	for _, e := range k.keys.byName {
		if strings.Contains(fmt.Sprintf("%+v", *e), secret) {
			t.Error("the secret can be read from an entry")
		}
	}
}

func TestFailedFileLeavesNoPlaceTaken(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	if err := os.RemoveAll(h.dirs.Tokens); err != nil {
		t.Fatal(err)
	}
	for range 3 * MaxPerPeer {
		if _, err := k.Mint(alice); !errors.As(err, new(*DirError)) {
			t.Fatalf("mint without a directory: %v", err)
		}
	}
	if n := k.Health().Outstanding; n != 0 {
		t.Errorf("%d places are taken", n)
	}
}

func TestManyCallersAtOnceGetWhatIsTheirs(t *testing.T) {
	h := newHost(t)
	k := h.keeper()
	var wg sync.WaitGroup
	for i := range 8 {
		peer := platform.UIDPeer(uint32(3000 + i))
		wg.Go(func() {
			for range 50 {
				path, err := k.Mint(peer)
				if errors.As(err, new(*DirError)) {
					continue // the directory is being replaced
				}
				content, readErr := os.ReadFile(path)
				if err != nil || readErr != nil {
					continue
				}
				if ticket, err := k.Redeem(peer, string(content)); err == nil && !ticket.Consume() {
					t.Errorf("%v: somebody else used the challenge", peer)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 20 {
			if err := os.Rename(h.dirs.Tokens, fmt.Sprintf("%s.%d", h.dirs.Tokens, i)); err != nil {
				t.Error(err)
			}
			h.mkdir()
			k.scan()
		}
	})
	wg.Wait()
	k.scan()
	if n := k.Health().Outstanding; n != 0 {
		t.Errorf("%d challenges left", n)
	}
}

func FuzzRedeem(f *testing.F) {
	f.Add("")
	f.Add(strings.Repeat("A", 43))
	f.Add(strings.Repeat("\x00", 43))
	t := &testing.T{}
	h := &host{t: t, foreign: make(map[string]bool)}
	h.dirs.Tokens = filepath.Join(f.TempDir(), "tokens")
	h.dirs.TokensLiteral = h.dirs.Tokens
	h.mkdir()
	k, err := New(Options{Host: h, Poll: true})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := k.Mint(alice); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, secret string) {
		if ticket, err := k.Redeem(alice, secret); err == nil || ticket != nil {
			t.Errorf("%q was accepted", secret)
		}
	})
}

func BenchmarkMintRedeemConsume(b *testing.B) {
	t := &testing.T{}
	h := &host{t: t, foreign: make(map[string]bool)}
	h.dirs.Tokens = filepath.Join(b.TempDir(), "tokens")
	h.dirs.TokensLiteral = h.dirs.Tokens
	h.mkdir()
	k, err := New(Options{Host: h, Poll: true})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		path, err := k.Mint(alice)
		if err != nil {
			b.Fatal(err)
		}
		secret, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		ticket, err := k.Redeem(alice, string(secret))
		if err != nil || !ticket.Consume() {
			b.Fatal("not redeemed", err)
		}
	}
}

// BenchmarkSameFileWork is the floor of BenchmarkMintRedeemConsume.
func BenchmarkSameFileWork(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x.key")
	var raw [secretBytes]byte
	for b.Loop() {
		_, _ = rand.Read(raw[:])
		err := os.WriteFile(path, base64.RawURLEncoding.AppendEncode(nil, raw[:]), 0o440)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := os.ReadFile(path); err != nil {
			b.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			b.Fatal(err)
		}
	}
}
