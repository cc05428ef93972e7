//go:build windows

package windows

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"
)

// Serve lets the service manager run the agent: run gets a context that ends
// when the manager says stop, and its error becomes a service-specific exit
// code, 1. Call it for `run --service` only; svc.IsWindowsService is not relied
// on. Notify("READY=1") makes the service Running.
func (h *Host) Serve(ctx context.Context, run func(context.Context) error) error {
	s := &service{host: h, ctx: ctx, run: run}
	if err := svc.Run(Service, s); err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	return s.err
}

// service answers the service manager.
type service struct {
	host *Host
	ctx  context.Context //nolint:containedctx // svc.Handler has no place for it
	run  func(context.Context) error
	err  error
}

const accepts = svc.AcceptStop | svc.AcceptShutdown

// Execute is the life of the service (svc.Handler).
func (s *service) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (specific bool, code uint32) {
	status <- svc.Status{State: svc.StartPending, WaitHint: 90_000}
	states := make(chan svc.State, 8)
	s.host.setAnnounce(func(state string) {
		for line := range strings.SplitSeq(state, "\n") {
			switch line {
			case "READY=1":
				states <- svc.Running
			case "STOPPING=1":
				states <- svc.StopPending
			}
		}
	})
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	for {
		select {
		case state := <-states:
			next := svc.Status{State: state, WaitHint: 10_000}
			if state == svc.Running {
				next = svc.Status{State: state, Accepts: accepts}
			}
			status <- next
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				status <- r.CurrentStatus
			case svc.Stop, svc.Shutdown:
				status <- svc.Status{State: svc.StopPending, WaitHint: 10_000}
				cancel()
			}
		case s.err = <-done:
			s.host.setAnnounce(nil)
			if s.err != nil {
				return true, 1
			}
			return false, 0
		}
	}
}

func (h *Host) setAnnounce(f func(string)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.announce = f
}

// recovery is what the manager does when the service ends by itself.
func recovery() []mgr.RecoveryAction {
	return []mgr.RecoveryAction{
		{Type: mgr.ServiceRestart, Delay: 5 * time.Second},
		{Type: mgr.ServiceRestart, Delay: 30 * time.Second},
		{Type: mgr.ServiceRestart, Delay: 60 * time.Second},
	}
}

// serviceConfig is the service as it is installed: its own account, started at boot.
func serviceConfig() mgr.Config {
	return mgr.Config{
		StartType:        mgr.StartAutomatic,
		ErrorControl:     mgr.ErrorNormal,
		ServiceStartName: `NT SERVICE\` + Service,
		DisplayName:      "Postern managed identity agent",
		Description:      "Gives programs on this device an identity, online or offline.",
		SidType:          windows.SERVICE_SID_TYPE_RESTRICTED,
	}
}

// InstallService registers exe with its arguments as the service, and the
// source of the event log. It needs an elevated administrator.
func InstallService(exe string, args ...string) error {
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	defer func() { _ = m.Disconnect() }() // the work is done or has failed
	s, err := m.CreateService(Service, exe, serviceConfig(), args...)
	if err != nil {
		return fmt.Errorf("create service: %w", err)
	}
	defer s.Close() //nolint:errcheck // as above
	if err := s.SetRecoveryActions(recovery(), uint32((24 * time.Hour).Seconds())); err != nil {
		return fmt.Errorf("service recovery: %w", err)
	}
	if err := s.SetRecoveryActionsOnNonCrashFailures(true); err != nil {
		return fmt.Errorf("service recovery: %w", err)
	}
	err = eventlog.InstallAsEventCreate(EventSource, eventlog.Info|eventlog.Warning|eventlog.Error)
	if err != nil && !strings.Contains(err.Error(), "already exists") { // the package has no sentinel for it
		return fmt.Errorf("event source: %w", err)
	}
	return nil
}

// RemoveService stops and removes the service and the event source; what is
// missing is no error.
func RemoveService() error {
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	defer func() { _ = m.Disconnect() }() // the work is done or has failed
	s, err := m.OpenService(Service)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open service: %w", err)
	}
	defer s.Close() //nolint:errcheck // as above
	if _, err := s.Control(svc.Stop); err != nil && !errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return fmt.Errorf("stop service: %w", err)
	}
	if err := s.Delete(); err != nil {
		return fmt.Errorf("delete service: %w", err)
	}
	_ = eventlog.Remove(EventSource) // a source without a service does no harm
	return nil
}
