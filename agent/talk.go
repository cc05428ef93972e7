package main

import (
	"context"
	"errors"

	"postern/agent/control"
)

// client is the way to the running agent.
func (c *cli) client() (*control.Client, error) {
	cfg, err := c.loadConfig()
	if err != nil {
		return nil, err
	}
	return &control.Client{Path: controlPath(cfg), Dial: dialControl}, nil
}

// viaAgent runs a long verb in the running agent. It returns false if no agent
// runs, so that the verb can do the work itself.
func (c *cli) viaAgent(ctx context.Context, verb string, body any) (bool, error) {
	client, err := c.client()
	if err != nil {
		return true, err
	}
	word := verb
	if r, ok := body.(control.ConnectRequest); ok && r.Again {
		word = "reconnect"
	}
	err = c.within(ctx, word, func(ctx context.Context) error { return client.Run(ctx, verb, body, c.tick) })
	if errors.Is(err, control.ErrNotRunning) {
		return false, nil
	}
	return true, err
}

// status asks the agent for what this account may see.
func (c *cli) status(ctx context.Context, verb string) (st control.Status, err error) {
	client, err := c.client()
	if err != nil {
		return st, err
	}
	err = c.within(ctx, verb, func(ctx context.Context) error {
		st, err = client.Status(ctx)
		return err
	})
	return st, err
}
