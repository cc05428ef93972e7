package endpoint

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// -guards takes the guards of this room, of the challenges and of the rooms below
// out, one by one, and wants a test to fail each time (firmware-notes/attack-surface.md). It takes minutes.
var guardRun = flag.Bool("guards", false, "run the tests once for each guard that is taken out")

// removal is one guard with what stands in its place when it is gone.
type removal struct {
	file string // "guard.go", "../challenge/ring.go"
	old  string // must stand there exactly once
	new  string
	test string // which must fail
}

// removals are all conditions of the two rooms whose removal would widen
// access, or let somebody keep others from being served.
func removals() []removal {
	const ep11 = "TestEP11HostileRequestsGetNoTokenNoChallengeAndNoFile"
	return []removal{
		{"guard.go", `r.ProtoMajor == 1 && r.ProtoMinor <= 1 && `, ``, ep11},
		{"guard.go", ` && strings.HasPrefix(r.RequestURI, "/") {`, ` && strings.Contains(r.RequestURI, "/") {`, ep11},
		{"guard.go", `f.hosts[r.Host]; ok {`, `f.hosts[r.Host]; ok || true {`, ep11},
		{"guard.go", `if !hasBody(r) {`, `if true {`, ep11},
		{"guard.go", `case "Origin", `, `case `, ep11},
		{"guard.go", `"Referer", `, ``, ep11},
		{"guard.go", `"Sec-Fetch-Site", `, ``, ep11},
		{"guard.go", `"Sec-Fetch-Dest", `, ``, ep11},
		{"guard.go", `"Sec-Fetch-User", `, ``, ep11},
		{"guard.go", `, "Upgrade":`, `:`, ep11},
		{"guard.go", `mark = "Access-Control-Request-"`, `mark = "-"`, ep11},
		{"guard.go", `case "Forwarded", `, `case `, ep11},
		{"guard.go", `"Via", `, ``, ep11},
		{"guard.go", `, "X-Real-Ip":`, `:`, ep11},
		{"guard.go", `"X-Forwarded-")`, `"X-Forwarded-For")`, ep11},
		{"guard.go", ` && !strings.HasPrefix(name, "Cf-")`, ``, ep11},
		{"guard.go", `len(v) == 1 && strings.EqualFold(v[0], "true")`, `len(v) >= 1 && strings.EqualFold(v[0], "true")`, ep11},
		{"guard.go", `strings.EqualFold(v[0], "true")`, `v[0] != ""`, ep11},
		{"exchange.go", `if x.r.Method != http.MethodGet {`, `if false {`, "TestEP2OtherMethodsGet405AndMakeNoFile"},
		{"exchange.go", `(t.Value.Empty() || t.Remaining <= 0)`, `false`, "TestA200IsNeverWrittenWithoutALiveToken"},
		{"exchange.go", `defer x.rescue()
		x.serve()`, `x.serve()`, "TestPanicIsA500WithItsCorrelationIDInTheLog|TestPanicWithoutHooksIsA500"},
		{"front.go", `DisableGeneralOptionsHandler: true,`, `DisableGeneralOptionsHandler: false,`, ep11},
		{"front.go", `MaxHeaderBytes: maxHeaderBytes,`, `MaxHeaderBytes: 1 << 20,`, "TestEP7HeadersBeyond8KiBGet431"},
		{"front.go", `ReadTimeout:                  headerTime,`, ``, "TestSlowBodyIsClosedAfter5Seconds"},
		{"front.go", `IdleTimeout:                  idleTime,`, ``, "TestIdleConnectionIsClosedAfter30Seconds"},
		{"front.go", `if !ip.IsLoopback() || s.o.Keeper == nil {`, `if s.o.Keeper == nil {`, "TestListenerThatTheNetworkReachesIsRefused"},
		{"front.go", `if !ip.IsLoopback() && ip != imdsAddress {`, `if false {`, "TestListenerThatTheNetworkReachesIsRefused"},
		{"front.go", `if ip.IsUnspecified() {`, `if false {`, "TestListenerThatTheNetworkReachesIsRefused"},
		{"gate.go", `if f.local && !fromThisMachine(c) {`, `if false {`, "TestNetworkGetsNotOneByte"},
		{"gate.go", `if remote.IsLoopback() {`, `if true {`, "TestOnlyThisMachineMayConnectWhereThereIsNoSecret"},
		{"gate.go", `own.share = f.workload.peer()`, `own.share = own.peer`, "TestWorkloadPaysForItsOwnConnections"},
		{"limits.go", `if l.perPeer[p] >= l.share {`, `if false {`, "TestAPeerIsHeldTo32ConnectionsAndOthersAreServed"},
		{"limits.go", `if len(l.conns) < l.max {`, `if true {`, "TestConnection129WaitsWhileNoneIsIdle"},
		{"limits.go", `if !c.armed {`, `if false {`, "TestAnswerThatIsNotReadIsGivenUpAfter10Seconds"},
		{"arc.go", `len(values) > 1 || len(v) > maxAuthorization || `, ``, "TestEP3EveryOtherAuthorizationGetsAFreshChallenge"},
		{"arc.go", `if !ticket.Consume() {`, `if !ticket.Consume() && false {`, "TestKeyEarnsOneTokenHoweverManyAsk"},
		{"imds.go", `if !x.mayIMDS() {`, `if false {`, "TestIMDSServesOnlyWhoMay"},
		{"imds.go", `if may == nil || x.conn == nil {
		return false`, `if may == nil || x.conn == nil {
		return true`, "TestIMDSServesOnlyWhoMay"},
		{"imds.go", `now.Sub(x.conn.asked) >= imdsEvery`, `false`, "TestIMDSGateIsAskedAtMostOnceASecondForAConnection"},
		{"imds.go", `if len(v) != 1 || `, `if len(v) < 1 || `, "TestWrongSecretGets401WithoutChallenge"},
		{"imds.go", ` || !x.workload.holds(v[0])`, ``, "TestWrongSecretGets401WithoutChallenge"},
		{"imds.go", `caller := token.Caller{Peer: x.workload.peer()`, `caller := token.Caller{Peer: x.conn.caller()`, "TestWorkloadIsItsSecretWhateverItsAccount"},
		{"workload.go", `if !time.Now().Before(w.until) {`, `if false {`, "TestRotatedSecretWorksForAnother10Minutes"},
		{"workload.go", `return f.count > maxFailures`, `return false`, "TestEleventhWrongSecretInAMinuteGets429AndTheRightOneStillPasses"},
		{"workload.go", `if f == nil && len(w.failures) >= maxAddresses {`, `if false {`, "TestFailuresOfManyAddressesStayBounded"},
		{"denials.go", `if now.Sub(f.since) < denialEvery {`, `if false {`, "TestDenialsAreToldOnceAMinuteForACallerAndReason"},
		{"denials.go", `if len(n.seen) >= maxDenials {`, `if false {`, "TestDenialsStayBounded"},
		{"describe.go", `text = withoutTokens(text)`, ``, "TestCleanHidesWhatStrangersMayNotSee"},
		{"describe.go", `text = withoutWord(text, "unreachable", "not reachable")`, ``, "TestEveryRowOfTheErrorTableInEveryFlavour"},
		{"describe.go", `text = withoutPath(text, stateDir)`, ``, "TestEveryRowOfTheErrorTableInEveryFlavour"},
		{"describe.go", `r == utf8.RuneError || !unicode.IsPrint(r)`, `false`, "TestEveryRowOfTheErrorTableInEveryFlavour"},
		{"answer.go", `a.text = clean(a.text, x.s.o.StateDir)`, ``, "TestEveryRowOfTheErrorTableInEveryFlavour"},
		{"query.go", `case p.seen&bit != 0:`, `case false:`, "TestEP1BadQueriesGet400NamingTheParameterAndMakeNoFile"},
		{"query.go", `if p.seen&hasSelector != 0 {`, `if false {`, "TestEP1BadQueriesGet400NamingTheParameterAndMakeNoFile"},
		{"query.go", `case !printable(value):`, `case false:`, "TestEP1BadQueriesGet400NamingTheParameterAndMakeNoFile"},
		{"query.go", `case len(value) > limit:`, `case len(value) > limit+maxQuery:`, "TestEP1BadQueriesGet400NamingTheParameterAndMakeNoFile"},
		{"query.go", `if len(raw) > maxQuery {`, `if false {`, "TestEP1BadQueriesGet400NamingTheParameterAndMakeNoFile"},
		{"query.go", ` || c == ';'`, ``, "TestEP1BadQueriesGet400NamingTheParameterAndMakeNoFile"},
		{"query.go", `if hi > 15 || lo > 15 {`, `if false {`, "TestEP1BadQueriesGet400NamingTheParameterAndMakeNoFile"},

		{"../challenge/ring.go", `for _, k := range r.byPeer[peer] {
		same`, `for _, k := range r.byName {
		same`, "TestChallengeOfAnotherPeerIsNotValid"},
		{"../challenge/ring.go", ` && !k.expired(now) {`, ` {`, "TestKeyEndsAtItsLifeBeforeAnySweep"},
		{"../challenge/ring.go", `if same && k.live && `, `if same && `, "TestKeyIsNotValidBeforeItsFileIsComplete"},
		{"../challenge/ring.go", `if own := r.byPeer[peer]; len(own) >= MaxPerPeer {`, `if own := r.byPeer[peer]; false {`, "TestPeerIsHeldToSixteenChallenges"},
		{"../challenge/ring.go", `		if k.presented {
			return k`, `		if true {
			return k`, "TestPeerIsHeldToSixteenChallenges"},
		{"../challenge/ring.go", `	if len(r.byName) >= MaxOutstanding {
		return`, `	if false {
		return`, "TestNoKeyGivesWayForAnotherPeer"},
		{"../challenge/ring.go", `old := oldestPresented(own)`, `var all []*entry
		for _, keys := range r.byPeer {
			all = append(keys, all...)
		}
		old := oldestPresented(all)`, "TestRingKeepsItsBoundsAndBindings"},
		{"../challenge/keeper.go", `if t.entry.used {`, `if false {`, "TestTwoAnswersAtOnceUseAChallengeOnce"},
		{"../challenge/keeper.go", `there := k.keys.remove(t.entry)`, `there := false`, "TestChallengeIsGoneAfterTheFirst200"},
		{"../challenge/keeper.go", `case k.problem != nil:`, `case false:`, "TestNoChallengeInADirectoryThatDrifted"},
		{"../challenge/keeper.go", `case k.stopped:`, `case false:`, "TestStopRemovesEveryChallengeAndRefusesNewOnes"},
		{"../challenge/keeper.go", ` || r == '='`, ``, "TestLiteralPathThatNoClientCouldParseIsRefused"},
		{"../challenge/directory.go", `if h.dir.Check() == nil {`, `if true {`, "TestNoChallengeInADirectoryThatDrifted"},
		{"../challenge/directory.go", `	k.giveUp(former)`, `	_ = former`, "TestOS4ReplacedDirectoryThatFitsIsAdopted"},
		{"../challenge/run.go", `		k.void(h)`, ``, "TestNoChallengeInADirectoryThatDrifted"},
		{"../challenge/run.go", `case !known && e.Ours && ownName(e.Name):`, `case !known && e.Ours:`, "TestUnknownFilesAreReportedNeverReadNeverRemoved"},
		{"../challenge/run.go", `case known && e.Ours:`, `case known:`, "TestFileThatSomebodyTookAwayIsNoLongerValid"},
		{"../challenge/run.go", `	k.forget(missing)`, ``, "TestFileThatSomebodyTookAwayIsNoLongerValid"},
		{"../challenge/run.go", `	k.giveUp(h)`, `	_ = h`, "TestStopRemovesEveryChallengeAndRefusesNewOnes"},
		{"../challenge/run.go", `	gone := k.keys.expire(now)`, `	var gone []*entry; _ = now`, "TestFilesAreSweptWhenTheirLifeEnds"},
		{"../challenge/age.go", `a.slept.Store(int64(slept))`, ``, "TestChallengeIsSweptAfterASuspendThatOutlastedIt"},
	}
}

func TestEveryGuardThatIsTakenOutIsMissed(t *testing.T) {
	all := slices.Concat(removals(), roomsBelow(), asRoot())
	for _, g := range all { // always: the table is still about this code
		content, err := os.ReadFile(g.file)
		if err != nil || strings.Count(string(content), g.old) != 1 {
			t.Errorf("%s: %q stands there %d times, %v", g.file, g.old, strings.Count(string(content), g.old), err)
		}
	}
	if !*guardRun {
		t.Logf("%d guards are listed; take them out with -guards", len(all))
		return
	}
	for _, g := range all {
		t.Run(filepath.Base(g.file)+" "+g.old, func(t *testing.T) { g.play(t) })
	}
}

// play runs the named test on the code without the guard.
func (g removal) play(t *testing.T) {
	t.Helper()
	content, err := os.ReadFile(g.file)
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs(g.file)
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(t.TempDir(), "changed.go")
	overlay := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(content), g.old, g.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-overlay", overlay, "-vet", "off", "-count", "1", "-timeout", "60s", "-run", "^("+g.test+")$", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as the product is built: with cgo some tests do not run
	cmd.Dir = filepath.Dir(path)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("%s passes without it", g.test)
	}
	if !strings.Contains(string(out), "--- FAIL: Test") && !strings.Contains(string(out), "panic: ") {
		t.Errorf("no test failed:\n%s", out)
	}
}
